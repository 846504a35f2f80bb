// The one file that sees the header of SentencePiece's trainer.
#include <sentencepiece_trainer.h>

#include "launch/data/train_tokenizer.h"
#include "runtime/error.h"

namespace longspan {
namespace {

class Lines : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(const std::vector<std::string>& lines) : lines_(lines) {}
  bool done() const override { return next_ == lines_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return lines_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& lines_;
  size_t next_ = 0;
};

}  // namespace

std::string TrainTokenizer(const TokenizerTraining& training, const TextSample& sample) {
  Lines lines(sample.lines());
  std::string model;
  // A fixed number of threads: sums are in their order.
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {{"model_type", training.type},
       {"vocab_size", fmt::format("{}", training.vocab)},
       {"character_coverage", fmt::format("{}", training.coverage)},
       {"byte_fallback", "true"},
       {"normalization_rule_name", "identity"},
       {"remove_extra_whitespaces", "false"},
       {"add_dummy_prefix", "false"},
       {"allow_whitespace_only_pieces", "true"},
       {"split_digits", "true"},
       {"train_extremely_large_corpus", "true"},
       {"max_sentence_length", fmt::format("{}", 2 * TextSample::kLongestLine)},
       {"num_threads", "16"},
       {"minloglevel", "3"}},
      &lines, &model);
  if (!status.ok()) {
    std::string reason = status.ToString();
    if (const size_t at = reason.rfind("] "); at != std::string::npos)
      reason = reason.substr(at + 2);  // after its place
    if (reason.empty()) reason = "it holds no sentence that SentencePiece takes";
    Fail(ExitCode::kUsage, "--vocab {} --type {}: cannot be made of {} bytes of text: {}", training.vocab,
         training.type, sample.bytes(), reason);
  }
  return model;
}

}  // namespace longspan
