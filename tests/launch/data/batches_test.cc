#include "launch/data/batches.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "launch/data/dataset.h"
#include "launch/data/megatron.h"
#include "launch/data/packed_source.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

using Ids = std::vector<int32_t>;

// Sequence `index`, over values that no source writes.
Sequence Filled(const SequenceSource& source, int64_t index) {
  Sequence sequence(source.length());
  for (Ids* ids : {&sequence.tokens, &sequence.targets, &sequence.doc_start}) std::fill(ids->begin(), ids->end(), 99);
  source.Fill(index, sequence.tokens, sequence.targets, sequence.doc_start);
  return sequence;
}

class Batches : public testing::Test {
 protected:
  // A dataset of these document lengths; token i of all is i + 1, so that every token is told apart.
  std::shared_ptr<const Dataset> MakeDataset(const std::vector<int64_t>& lengths) {
    MegatronWriter writer(path_, 100000);
    int32_t next = 1;
    for (const int64_t length : lengths) {
      Ids ids(length);
      std::iota(ids.begin(), ids.end(), next);
      next += static_cast<int32_t>(length);
      writer.Append(ids);
      writer.EndDocument();
    }
    CommitAll(writer.Complete());
    return std::make_shared<const Dataset>(OpenDataset(DataFormat::kMegatron, path_));
  }
  std::unique_ptr<SequenceSource> Pack(const std::vector<int64_t>& lengths, const Packing& packing) {
    return MakePackedSource(MakeDataset(lengths), 0, static_cast<int64_t>(lengths.size()), packing);
  }
  TempFolder folder_;
  const std::string path_ = folder_ / "set";
};

TEST_F(Batches, DocumentsArePackedAtMultiplesOfTheBlock) {
  const auto source = Pack({3, 4, 0, 1, 10, 2}, {.length = 12, .alignment = 4, .document_masks = true});
  ASSERT_EQ(source->size(), 3);
  const Sequence first = Filled(*source, 0), second = Filled(*source, 1), third = Filled(*source, 2);
  EXPECT_EQ(first.tokens, (Ids{1, 2, 3, 0, 4, 5, 6, 7, 8, 0, 0, 0}));
  EXPECT_EQ(first.targets, (Ids{2, 3, -1, -1, 5, 6, 7, -1, -1, -1, -1, -1}));
  EXPECT_EQ(first.doc_start, (Ids{0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8}));
  EXPECT_EQ(second.tokens, (Ids{9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 0, 0}));
  EXPECT_EQ(second.doc_start, (Ids(12, 0)));
  EXPECT_EQ(third.tokens, (Ids{19, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(third.targets, (Ids{20, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}));
  EXPECT_NE(source->Summary().find("6 documents, 20 tokens in 3 sequences of 12, padding 44.4%, labels 41.7%"),
            std::string::npos)
      << source->Summary();
}

TEST_F(Batches, ALongDocumentContinuesAsAnother) {
  const auto source = Pack({2, 7}, {.length = 4, .alignment = 2, .document_masks = true});
  ASSERT_EQ(source->size(), 3);
  EXPECT_EQ(Filled(*source, 0).tokens, (Ids{1, 2, 3, 4}));
  EXPECT_EQ(Filled(*source, 0).targets, (Ids{2, -1, 4, -1}));
  EXPECT_EQ(Filled(*source, 1).tokens, (Ids{5, 6, 7, 8}));
  EXPECT_EQ(Filled(*source, 1).doc_start, (Ids{0, 0, 0, 0}));
  EXPECT_EQ(Filled(*source, 2).targets, (Ids{-1, -1, -1, -1}));
}

TEST_F(Batches, WithoutMasksNothingIsPadded) {
  const auto source = Pack({3, 4, 1}, {.length = 8, .alignment = 1, .document_masks = false});
  ASSERT_EQ(source->size(), 1);
  EXPECT_EQ(Filled(*source, 0).tokens, (Ids{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(Filled(*source, 0).targets, (Ids{2, 3, -1, 5, 6, 7, -1, -1}));
  EXPECT_EQ(Filled(*source, 0).doc_start, Ids(8, 0));
}

// Whatever the lengths: every token once and in order, starts valid, labels the next token of the same piece.
TEST_F(Batches, AnyLengthsKeepTheRules) {
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    std::vector<int64_t> lengths(1 + random() % 20);
    for (int64_t& length : lengths) length = random() % (random() % 4 == 0 ? 100 : 9);
    lengths.push_back(1);
    const int64_t block = int64_t{1} << (random() % 4), length = 1 + static_cast<int64_t>(random() % 40);
    const auto source = Pack(lengths, {.length = length, .alignment = block, .document_masks = true});
    int32_t next = 1;
    for (int64_t i = 0; i < source->size(); ++i) {
      const Sequence sequence = Filled(*source, i);
      ValidateDocStart(sequence.doc_start, block, "packed");
      for (int64_t t = 0; t < length; ++t) {
        if (sequence.tokens[t] != 0) {
          ASSERT_EQ(sequence.tokens[t], next++);
        }
        const bool labelled = t + 1 < length && sequence.tokens[t] != 0 && sequence.tokens[t + 1] != 0 &&
                              sequence.doc_start[t] == sequence.doc_start[t + 1];
        ASSERT_EQ(sequence.targets[t], labelled ? sequence.tokens[t + 1] : -1);
      }
    }
    EXPECT_EQ(next - 1, std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
  }
}

TEST_F(Batches, ARankLoadsItsPart) {
  const auto source = Pack({20, 9, 100, 3}, {.length = 64, .alignment = 8, .document_masks = true});
  const NsaConfig nsa{.block = 8, .stride = 4, .select_block = 8};
  const Layout layout(LayoutKind::kHeadTail, 64, 2, 8);
  for (int rank = 0; rank < 2; ++rank) {
    BatchLoader loader(*source, layout, rank, nsa, 5);
    Batch batch, expected;
    loader.Load(1, batch);
    CutSequence(Filled(*source, loader.SequenceAt(1)), layout, rank, nsa, &expected);
    EXPECT_EQ(batch.tokens, expected.tokens);
    EXPECT_EQ(batch.targets, expected.targets);
    EXPECT_EQ(batch.positions, expected.positions);
    EXPECT_EQ(batch.summary_positions, expected.summary_positions);
    EXPECT_EQ(batch.doc_start, expected.doc_start);
    EXPECT_EQ(batch.labels, expected.labels);
  }
}

TEST_F(Batches, TheOrderIsAFunctionOfSeedAndPlace) {
  const auto source = Pack(std::vector<int64_t>(37, 4), {.length = 4, .alignment = 4, .document_masks = true});
  const Layout layout(LayoutKind::kContiguous, 4, 1, 4);
  NsaConfig nsa;
  BatchLoader forward(*source, layout, 0, nsa, 1), resumed(*source, layout, 0, nsa, 1),
      other(*source, layout, 0, nsa, 2);
  std::vector<int64_t> order, other_order;
  for (int64_t place = 0; place < 3 * 37; ++place) {
    order.push_back(forward.SequenceAt(place));
    other_order.push_back(other.SequenceAt(place));
  }
  EXPECT_NE(order, other_order);
  for (const int64_t place : {110, 40, 3, 75}) EXPECT_EQ(resumed.SequenceAt(place), order[place]);
  std::vector<int64_t> all(37);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_NE(std::vector(order.begin(), order.begin() + 37), std::vector(order.begin() + 37, order.begin() + 74));
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::sort(order.begin() + 37 * epoch, order.begin() + 37 * (epoch + 1));
    EXPECT_EQ(std::vector(order.begin() + 37 * epoch, order.begin() + 37 * (epoch + 1)), all);
  }
  // Fixed for good: a checkpoint continues on another machine, with another library.
  EXPECT_EQ(ShuffledOrder(8, 1, 0), (std::vector<uint32_t>{7, 6, 0, 5, 2, 3, 1, 4}));
}

TEST_F(Batches, ReplicasShareEveryStepOut) {
  for (const int64_t dp : {1, 2, 3, 6}) {
    std::vector<int64_t> places;
    for (int64_t micro = 0; micro < 6 / dp; ++micro) {
      for (int64_t replica = 0; replica < dp; ++replica) places.push_back(BatchLoader::Place(2, 6, micro, dp, replica));
    }
    EXPECT_EQ(places, (std::vector<int64_t>{12, 13, 14, 15, 16, 17}));
  }
}

// Any sequence can be asked for first, though only some beginnings are kept.
TEST_F(Batches, SequencesComeInAnyOrder) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 300; ++i) lengths.push_back(i * 7 % 11);
  const auto source = Pack(lengths, {.length = 16, .alignment = 4, .document_masks = true});
  ASSERT_GT(source->size(), 100);
  std::vector<Ids> tokens;
  int64_t labels = 0;
  for (int64_t i = 0; i < source->size(); ++i) {
    const Sequence sequence = Filled(*source, i);
    tokens.push_back(sequence.tokens);
    labels += std::count_if(sequence.targets.begin(), sequence.targets.end(), [](int32_t id) { return id >= 0; });
  }
  EXPECT_EQ(source->labels(), labels);
  for (int64_t i = source->size() - 1; i >= 0; --i) EXPECT_EQ(Filled(*source, i).tokens, tokens[i]) << i;
}

// All tokens once, each part by one rank.
TEST_F(Batches, TokensOutsideTheVocabularyAreFoundByOneOfTheParts) {
  MakeDataset({5, 0, 6});  // 1 to 11
  DataConfig data;
  data.train = path_;
  data.validation_fraction = 0;
  data.sequence_length = 8;
  for (const int64_t parts : {1, 2, 3, 7, 11, 20}) {
    const auto found = [&](int64_t vocab) {
      int64_t count = 0;
      const Sources sources = OpenSources(data, vocab, 8);
      for (int64_t part = 0; part < parts; ++part) {
        try {
          CheckTokens(sources, vocab, part, parts);
        } catch (const Error&) {
          ++count;
        }
      }
      return count;
    };
    EXPECT_EQ(found(12), 0);
    EXPECT_EQ(found(11), 1);
  }
  ExpectError(ExitCode::kData, {"data.train", path_, "document 2, offset 2: token id 8 ", "model.vocab = 8"},
              [&] { CheckTokens(OpenSources(data, 8, 8), 8); });
}

TEST_F(Batches, ADatasetWithoutLabelsIsRefused) {
  MakeDataset({1, 1, 1, 1});
  DataConfig data;
  data.train = path_;
  data.sequence_length = 8;
  data.validation_fraction = 0;
  ExpectError(ExitCode::kData, {"data.train: ", path_, "none to learn from"}, [&] { OpenSources(data, 1000, 8); });
  MakeDataset({4, 1});
  data.validation_fraction = 0.5;
  ExpectError(ExitCode::kData, {"data.validation_fraction: ", path_}, [&] { OpenSources(data, 1000, 8); });
  data.format = DataFormat::kFibonacci;
  data.sequence_length = 2;
  ExpectError(ExitCode::kData, {"data.train: ", "Fibonacci"}, [&] { OpenSources(data, 10, 8); });
}

TEST_F(Batches, SourcesOfAConfiguration) {
  MakeDataset(std::vector<int64_t>(20, 8));
  DataConfig data;
  data.train = path_;
  data.sequence_length = 8;
  data.validation_fraction = 0.1;
  const Sources split = OpenSources(data, 1000, 8);
  EXPECT_EQ(split.train->size(), 18);
  EXPECT_EQ(split.validation->size(), 2);
  EXPECT_EQ(Filled(*split.validation, 0).tokens[0], 18 * 8 + 1);

  data.validation_fraction = 0;
  EXPECT_EQ(OpenSources(data, 1000, 8).validation, nullptr);
  data.validation = path_;
  EXPECT_EQ(OpenSources(data, 1000, 8).validation->size(), 20);

  ExpectError(ExitCode::kData, {path_, "document 0, offset 4", "id 5", "vocabulary of 5"},
              [&] { Filled(*OpenSources(data, 5, 8).train, 0); });
  MakeDataset({50});
  data.validation = "";
  data.validation_fraction = 0.05;
  ExpectError(ExitCode::kConfig, {"data.validation_fraction", "two documents"}, [&] { OpenSources(data, 1000, 8); });
  data.format = DataFormat::kFibonacci;
  EXPECT_EQ(OpenSources(data, 10, 8).train->size(), 82);
  ExpectError(ExitCode::kConfig, {"model.vocab = 9"}, [&] { OpenSources(data, 9, 8); });
}

}  // namespace
}  // namespace longspan
