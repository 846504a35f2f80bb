// Token by token a model says what its training forward says at every position, bit for bit, whatever the kind of
// attention, and whoever else is in the batch.
#include "model/decode/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/comm/local_comm.h"
#include "tests/support/model_case.h"

namespace longspan {
namespace {

class DecoderTest : public testing::Test {
 protected:
  // The training forward over one document, and a decoder of the same weights.
  void Start(const SessionConfig& config, int64_t sequences = 1) {
    config_ = config;
    config_.sequence_length = 400;  // far longer than window and selected blocks
    training_ = std::make_unique<ModelCase>(config_, *alone_, DType::kF32, /*documents=*/false);
    training_->Forward();
    const int64_t length = config_.sequence_length, vocab = config_.model.vocab;
    expected_.resize(length * vocab);
    training_->session.model().Logits(HostView(expected_.data(), {length, vocab}));
    training_->session.compute().Synchronize();
    decoder_ = std::make_unique<Decoder>(
        TestCpu(),
        Decoder::Args{.model = config_.model, .dtype = DType::kF32, .sequences = sequences, .length = length});
    decoder_->Start();
    for (const auto& param : training_->session.model().params().params()) {
      const Param& to = decoder_->params().Find(param->name);
      TestCpu().Copy(decoder_->stream(), to.weight, param->weight);
    }
  }
  std::span<const int32_t> tokens() const { return training_->batch.tokens; }
  // Logits after the first `length` tokens.
  std::vector<float> Expected(int64_t length) const {
    const auto row = expected_.begin() + (length - 1) * config_.model.vocab;
    return {row, row + config_.model.vocab};
  }
  // After a prompt, token by token.
  void ExpectTrainingsLogits(int64_t prompt) {
    decoder_->Clear(0);
    const Decoder::Entry first{0, tokens().first(prompt)};
    ASSERT_EQ(decoder_->Append({&first, 1})[0], Expected(prompt)) << "prompt of " << prompt;
    for (int64_t t = prompt; t < std::ssize(tokens()); ++t) {
      const Decoder::Entry next{0, tokens().subspan(t, 1)};
      ASSERT_EQ(decoder_->Append({&next, 1})[0], Expected(t + 1)) << "prompt of " << prompt << ", token " << t;
    }
  }

  const std::unique_ptr<Communicator> alone_ = MakeLocalCommunicator(TestCpu());
  SessionConfig config_;
  std::unique_ptr<ModelCase> training_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<float> expected_;
};

TEST_F(DecoderTest, EveryKindOfAttention) {
  struct Case {
    const char* name;
    void (*change)(ModelConfig&);
  };
  for (const auto& [name, change] : std::initializer_list<Case>{
           {"NSA", [](ModelConfig&) {}},
           {"FULL", [](ModelConfig& m) { m.attention = {AttentionKind::kFull}; }},
           {"WINDOW", [](ModelConfig& m) { m.attention = {AttentionKind::kWindow}; }},
           {"mixed",
            [](ModelConfig& m) {
              m.attention = {AttentionKind::kNsa, AttentionKind::kFull};
            }},
           {"SHARED", [](ModelConfig& m) { m.nsa.kv_branches = KvBranches::kShared; }},
           {"SHARED, BEFORE",
            [](ModelConfig& m) {
              m.nsa.kv_branches = KvBranches::kShared;
              m.nsa.compress_rope = CompressRope::kBefore;
            }},
           {"BEFORE, LINEAR",
            [](ModelConfig& m) {
              m.nsa.compress_rope = CompressRope::kBefore;
              m.nsa.phi = Phi::kLinear;
            }},
           {"MEAN, QK-norm, untied, YaRN",
            [](ModelConfig& m) {
              m.nsa.phi = Phi::kMean;
              m.qk_norm = true;
              m.tied_head = false;
              m.rope = {.scaling = RopeScaling::kYarn, .factor = 4, .original_max_position = 64};
            }},
       }) {
    SCOPED_TRACE(name);
    SessionConfig config = SmallConfig();
    change(config.model);
    Start(config);
    ExpectTrainingsLogits(1);
    ExpectTrainingsLogits(config.model.nsa.window + 5);
    ExpectTrainingsLogits(decoder_->step() + 77);  // a prompt of two steps
  }
}

TEST_F(DecoderTest, ABatchIsEachAlone) {
  Start(SmallConfig(), 3);
  // Of lengths that differ, together longer than a step.
  std::vector<int64_t> lengths = {1, 150, 330};
  std::vector<Decoder::Entry> entries;
  for (int64_t i = 0; i < 3; ++i) entries.push_back({i, tokens().first(lengths[i])});
  for (int step = 0; step < 40; ++step) {
    const auto logits = decoder_->Append(entries);
    for (int64_t i = 0; i < 3; ++i) {
      ASSERT_EQ(logits[i], Expected(lengths[i])) << "sequence " << i << ", step " << step;
      entries[i].tokens = tokens().subspan(lengths[i]++, 1);
    }
  }
}

// Drafts of several tokens, wrong from some place on: the logits after each, and then as if the wrong ones had never
// been.
TEST_F(DecoderTest, DraftsAreCheckedAndTakenBack) {
  for (const auto& [kind, branches] :
       {std::pair(AttentionKind::kNsa, KvBranches::kSeparate), std::pair(AttentionKind::kNsa, KvBranches::kShared),
        std::pair(AttentionKind::kWindow, KvBranches::kSeparate)}) {
    SessionConfig config = SmallConfig();
    config.model.attention = {kind};
    config.model.nsa.kv_branches = branches;
    Start(config, 2);
    const int64_t vocab = config.model.vocab;
    std::vector<int64_t> lengths = {3, 270};
    int64_t longest = lengths[1];
    std::vector<Decoder::Entry> entries = {{0, tokens().first(lengths[0])}, {1, tokens().first(lengths[1])}};
    decoder_->Append(entries);
    for (int round = 0; round < 12; ++round) {
      std::vector<std::vector<int32_t>> drafts;
      std::vector<int64_t> right;
      for (int64_t i = 0; i < 2; ++i) {
        const auto next = tokens().subspan(lengths[i], i == 0 ? 1 + round * 7 % 20 : 8);
        drafts.emplace_back(next.begin(), next.end());
        right.push_back(round * 5 % (std::ssize(next) + 1));
        for (int64_t t = right[i]; t < std::ssize(next); ++t)
          drafts[i][t] = static_cast<int32_t>((next[t] + 1) % vocab);
        entries[i] = {i, drafts[i], true};
      }
      const auto logits = decoder_->Append(entries);
      longest = std::max(longest, decoder_->length(1));
      for (int64_t i = 0; i < 2; ++i) {
        ASSERT_EQ(std::ssize(logits[i]), std::ssize(drafts[i]) * vocab);
        for (int64_t t = 0; t < right[i]; ++t) {
          const auto row = logits[i].begin() + t * vocab;
          ASSERT_EQ(std::vector<float>(row, row + vocab), Expected(lengths[i] + t + 1)) << i << ", round " << round;
        }
        decoder_->TakeBack(i, lengths[i] += right[i]);
      }
    }
    // All that can be taken back, and no more.
    EXPECT_EQ(decoder_->least(1), std::max<int64_t>(0, longest - Decoder::kMostTakenBack));
    EXPECT_THROW(decoder_->TakeBack(1, decoder_->least(1) - 1), Error);
    decoder_->TakeBack(1, decoder_->least(1));
    for (int64_t t = decoder_->length(1); t < lengths[1] + 9; ++t) {
      const Decoder::Entry next{1, tokens().subspan(t, 1)};
      ASSERT_EQ(decoder_->Append({&next, 1})[0], Expected(t + 1)) << "token " << t;
    }
  }
}

TEST_F(DecoderTest, TheLikeliestTokensAreTheTrainingForwards) {
  Start(SmallConfig());
  const Decoder::Entry prompt{0, tokens().first(100)};
  std::vector<int32_t> text(tokens().begin(), tokens().begin() + 100);
  std::vector<float> logits = decoder_->Append({&prompt, 1})[0];
  while (std::ssize(text) < 300) {
    text.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    const Decoder::Entry next{0, std::span(text).last(1)};
    logits = decoder_->Append({&next, 1})[0];
  }
  // The training forward over the same text says the same at each of its positions.
  Sequence sequence(config_.sequence_length);
  std::copy(text.begin(), text.end(), sequence.tokens.begin());
  Batch batch;
  CutSequence(sequence, training_->session.layout(), 0, config_.model.nsa, &batch);
  training_->session.Load(batch);
  training_->Forward();
  training_->session.model().Logits(HostView(expected_.data(), {config_.sequence_length, config_.model.vocab}));
  training_->session.compute().Synchronize();
  for (int64_t t = 100; t < 300; ++t) {
    const std::vector<float> row = Expected(t);
    ASSERT_EQ(text[t], std::max_element(row.begin(), row.end()) - row.begin()) << t;
  }
}

}  // namespace
}  // namespace longspan
