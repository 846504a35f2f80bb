#include "launch/data/sequence_source.h"

#include <algorithm>
#include <utility>

#include "launch/config/blend.h"
#include "launch/data/blended_source.h"
#include "launch/data/dataset.h"
#include "launch/data/dataset_record.h"
#include "launch/data/fibonacci.h"
#include "launch/data/packed_source.h"
#include "launch/data/retrieval.h"
#include "runtime/error.h"

namespace longspan {

namespace {

// Ids of two tokenizers have nothing to do with each other. Datasets without a record may be anything.
void RequireOneTokenizer(const std::vector<Sources::File>& files) {
  std::optional<DatasetRecord> first;
  const Sources::File* known = nullptr;
  for (const Sources::File& file : files) {
    const std::optional<DatasetRecord> record = RecordOf(*file.dataset);
    if (!record) continue;
    if (known == nullptr) {
      first = record;
      known = &file;
    } else if (record->tokenizer != first->tokenizer || record->tokenizer_hash != first->tokenizer_hash) {
      Fail(ExitCode::kConfig,
           "{} = {} and {} = {} disagree: their tokens are of two tokenizers, {} and {}; make one again with the "
           "other's",
           known->key, known->dataset->path(), file.key, file.dataset->path(), first->Tokenizer(), record->Tokenizer());
    }
  }
}

// A loss over no label would look perfect.
void RequireLabels(const SequenceSource& source, const std::string& key) {
  if (source.labels() > 0) return;
  Fail(ExitCode::kData, "{}: expected a token that another of its document follows, found none to learn from: {}", key,
       source.Summary());
}

// Of formats whose sequences are made, not read.
Sources Generated(const DataConfig& data, int64_t vocab, int64_t select_block) {
  switch (data.format) {
    case DataFormat::kFibonacci:
      if (vocab < kFibonacciSymbols) {
        Fail(ExitCode::kConfig, "model.vocab = {}: data.format FIBONACCI needs {}", vocab, kFibonacciSymbols);
      }
      return {MakeFibonacciSource(FibonacciSplit::kTrain, data.sequence_length),
              MakeFibonacciSource(FibonacciSplit::kHeldOut, data.sequence_length),
              {}};
    case DataFormat::kRetrieval: {
      const int64_t alignment = data.document_masks ? select_block : 0;
      return {MakeRetrievalSource(vocab, data.sequence_length, alignment, false),
              MakeRetrievalSource(vocab, data.sequence_length, alignment, true),
              {}};
    }
    default:
      return {};
  }
}

}  // namespace

Sources OpenSources(const DataConfig& data, int64_t vocab, int64_t select_block) {
  if (Sources sources = Generated(data, vocab, select_block); sources.train) {
    RequireLabels(*sources.train, "data.train");
    RequireLabels(*sources.validation, "data.validation_fraction");
    return sources;
  }

  const Packing packing{data.sequence_length, data.document_masks ? select_block : 1, data.document_masks,
                        data.packing};
  Sources sources;
  std::vector<WeightedSource> train, validation;
  const auto open = [&](const std::string& key, const std::string& path) {
    sources.files.push_back(
        {key, std::make_shared<const Dataset>(OpenDataset(data.format, path, {.vocab = vocab, .separator = {}}))});
    return sources.files.back().dataset;
  };
  const auto pack = [&](std::vector<WeightedSource>& to, const std::string& key, const BlendPart& part,
                        std::shared_ptr<const Dataset> dataset, int64_t first, int64_t last) {
    to.push_back({part.train, part.weight, MakePackedSource(std::move(dataset), first, last, packing)});
    RequireLabels(*to.back().source, key);
  };
  const bool blended = !data.blend.empty();
  for (const BlendPart& part : PartsOf(data)) {
    const auto dataset = open(part.key, part.train);
    int64_t split = dataset->documents();  // from here on held out
    if (!part.validation.empty()) {
      const std::string key = blended ? part.key + ".validation" : "data.validation";
      const auto held_out = open(key, part.validation);
      pack(validation, key, part, held_out, 0, held_out->documents());
    } else if (part.validation_fraction > 0) {
      const std::string key = blended ? part.key + ".validation_fraction" : "data.validation_fraction";
      if (dataset->documents() < 2) {
        Fail(ExitCode::kConfig, "{} = {}: needs two documents, {} has one; name a file {}, or set 0", key,
             part.validation_fraction, dataset->path(), blended ? "by validation=" : "in data.validation");
      }
      const auto wanted = static_cast<int64_t>(part.validation_fraction * static_cast<double>(dataset->documents()));
      split -= std::clamp<int64_t>(wanted, 1, dataset->documents() - 1);
      pack(validation, key, part, dataset, split, dataset->documents());
    }
    pack(train, part.key, part, dataset, 0, split);
  }
  RequireOneTokenizer(sources.files);
  sources.train = Blend(std::move(train));
  sources.validation = Blend(std::move(validation));
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
         key, bad->file, bad->document, bad->offset, bad->id, vocab);
  }
}

}  // namespace longspan
