#include "launch/data/sequence_source.h"

#include <algorithm>

#include "launch/data/dataset.h"
#include "launch/data/dataset_record.h"
#include "launch/data/fibonacci.h"
#include "launch/data/packed_source.h"
#include "launch/data/retrieval.h"
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
       "data.train = {} and data.validation = {} disagree: their tokens are of two tokenizers, {} and {}; make one "
       "again with the other's",
       train.path(), validation.path(), name(*a), name(*b));
}

// A loss over no label would look perfect.
void RequireLabels(const SequenceSource* source, const char* key) {
  if (source == nullptr || source->labels() > 0) return;
  Fail(ExitCode::kData, "{}: expected a token that another of its document follows, found none to learn from: {}", key,
       source->Summary());
}

Sources Open(const DataConfig& data, int64_t vocab, int64_t select_block) {
  if (data.format == DataFormat::kFibonacci) {
    if (vocab < kFibonacciSymbols) {
      Fail(ExitCode::kConfig, "model.vocab = {}: data.format FIBONACCI needs {}", vocab, kFibonacciSymbols);
    }
    return {MakeFibonacciSource(FibonacciSplit::kTrain, data.sequence_length),
            MakeFibonacciSource(FibonacciSplit::kHeldOut, data.sequence_length),
            {}};
  }
  if (data.format == DataFormat::kRetrieval) {
    return {MakeRetrievalSource(vocab, data.sequence_length, false),
            MakeRetrievalSource(vocab, data.sequence_length, true),
            {}};
  }

  const Packing packing{data.sequence_length, data.document_masks ? select_block : 1, data.document_masks};
  Sources sources;
  const auto open = [&](const char* key, const std::string& path) {
    sources.files.push_back(
        {key, std::make_shared<const Dataset>(OpenDataset(data.format, path, {.vocab = vocab, .separator = {}}))});
    return sources.files.back().dataset;
  };
  const auto train = open("data.train", data.train);
  int64_t split = train->documents();  // from here on held out
  if (!data.validation.empty()) {
    const auto validation = open("data.validation", data.validation);
    RequireOneTokenizer(*train, *validation);
    sources.validation = MakePackedSource(validation, 0, validation->documents(), packing);
  } else if (data.validation_fraction > 0) {
    if (train->documents() < 2) {
      Fail(ExitCode::kConfig,
           "data.validation_fraction = {}: needs two documents, {} has one; name a file in data.validation, or set 0",
           data.validation_fraction, train->path());
    }
    const auto wanted = static_cast<int64_t>(data.validation_fraction * static_cast<double>(train->documents()));
    split -= std::clamp<int64_t>(wanted, 1, train->documents() - 1);
    sources.validation = MakePackedSource(train, split, train->documents(), packing);
  }
  sources.train = MakePackedSource(train, 0, split, packing);
  return sources;
}

}  // namespace

Sources OpenSources(const DataConfig& data, int64_t vocab, int64_t select_block) {
  Sources sources = Open(data, vocab, select_block);
  RequireLabels(sources.train.get(), "data.train");
  RequireLabels(sources.validation.get(), data.validation.empty() ? "data.validation_fraction" : "data.validation");
  return sources;
}

void CheckTokens(const Sources& sources, int64_t vocab, int64_t part, int64_t parts,
                 const std::function<bool()>& stop) {
  for (const auto& [key, dataset] : sources.files) {
    const std::optional<BadToken> bad = dataset->FindBadToken(part, parts, stop);
    if (!bad) continue;
    Fail(ExitCode::kData,
         "{}: {}: document {}, offset {}: token id {} is outside the vocabulary, model.vocab = {}; set it to more than "
         "the largest id (`longspan data info` says it), or name another dataset",
         key, dataset->path(), bad->document, bad->offset, bad->id, vocab);
  }
}

}  // namespace longspan
