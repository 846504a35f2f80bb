#include "launch/data/sequence_source.h"

#include <algorithm>

#include "launch/data/dataset.h"
#include "launch/data/dataset_record.h"
#include "launch/data/fibonacci.h"
#include "launch/data/packed_source.h"
#include "runtime/error.h"

namespace longspan {

namespace {

// Ids of two tokenizers have nothing to do with each other. Datasets without a record may be anything.
void RequireOneTokenizer(const Dataset& train, const Dataset& validation) {
  const auto a = RecordOf(train), b = RecordOf(validation);
  if (!a || !b || (a->tokenizer == b->tokenizer && a->tokenizer_hash == b->tokenizer_hash)) return;
  const auto name = [](const DatasetRecord& record) {
    return record.tokenizer_hash.empty() ? record.tokenizer
                                         : fmt::format("{} (model {})", record.tokenizer, record.tokenizer_hash);
  };
  Fail(ExitCode::kConfig,
       "data.train = {} and data.validation = {} disagree: their tokens are of two tokenizers, {} and {}; make one of "
       "them "
       "again with the other's",
       train.path(), validation.path(), name(*a), name(*b));
}

}  // namespace

Sources OpenSources(const DataConfig& data, int64_t vocab, int64_t select_block) {
  if (data.format == DataFormat::kFibonacci) {
    if (vocab < kFibonacciSymbols) {
      Fail(ExitCode::kConfig, "model.vocab = {}: data.format FIBONACCI needs {}", vocab, kFibonacciSymbols);
    }
    return {MakeFibonacciSource(FibonacciSplit::kTrain, data.sequence_length),
            MakeFibonacciSource(FibonacciSplit::kHeldOut, data.sequence_length)};
  }

  const Packing packing{data.sequence_length, data.document_masks ? select_block : 1, data.document_masks};
  const auto open = [&](const std::string& path) {
    return std::make_shared<const Dataset>(OpenDataset(data.format, path, {.vocab = vocab, .separator = {}}));
  };
  const auto train = open(data.train);
  if (!data.validation.empty()) {
    const auto validation = open(data.validation);
    RequireOneTokenizer(*train, *validation);
    return {MakePackedSource(train, 0, train->documents(), packing),
            MakePackedSource(validation, 0, validation->documents(), packing)};
  }
  if (data.validation_fraction == 0) return {MakePackedSource(train, 0, train->documents(), packing), nullptr};

  if (train->documents() < 2) {
    Fail(ExitCode::kConfig,
         "data.validation_fraction = {}: needs two documents, {} has one; name a file in data.validation, or set 0",
         data.validation_fraction, train->path());
  }
  const auto wanted = static_cast<int64_t>(data.validation_fraction * static_cast<double>(train->documents()));
  const int64_t held_out = std::clamp<int64_t>(wanted, 1, train->documents() - 1);
  const int64_t split = train->documents() - held_out;
  return {MakePackedSource(train, 0, split, packing), MakePackedSource(train, split, train->documents(), packing)};
}

}  // namespace longspan
