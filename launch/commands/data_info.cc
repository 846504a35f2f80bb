#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <optional>
#include <vector>

#include "launch/commands/data.h"
#include "launch/data/dataset.h"
#include "launch/data/dataset_record.h"
#include "launch/data/packing.h"
#include "launch/train/progress.h"

namespace longspan {
namespace {

// Reads every token, so that bad ids show here rather than in training.
int32_t LargestToken(const Dataset& dataset) {
  constexpr int64_t kPiece = int64_t{1} << 16;
  std::vector<int32_t> ids(kPiece);
  Progress progress("reading", dataset.tokens());
  int32_t largest = 0;
  int64_t read = 0;
  for (int64_t document = 0; document < dataset.documents(); ++document) {
    const int64_t length = dataset.DocumentLength(document);
    for (int64_t offset = 0; offset < length; offset += kPiece) {
      const auto piece = std::span(ids).first(std::min(kPiece, length - offset));
      dataset.Read(document, offset, piece);
      largest = std::max(largest, *std::max_element(piece.begin(), piece.end()));
      read += static_cast<int64_t>(piece.size());
      progress.Update(read, fmt::format("{} of {} tokens", read, dataset.tokens()));
    }
  }
  return largest;
}

// One line for each power of two: documents of that length, and their share of all tokens.
void PrintHistogram(const std::vector<int64_t>& lengths, int64_t tokens) {
  struct Bucket {
    int64_t documents = 0, tokens = 0;
  };
  std::vector<Bucket> buckets(65);  // bucket i: lengths of i bits
  for (const int64_t length : lengths) {
    Bucket& bucket = buckets[std::bit_width(static_cast<uint64_t>(length))];
    ++bucket.documents;
    bucket.tokens += length;
  }
  fmt::print("\n{:>24}  {:>10}  {:>8}\n", "length in tokens", "documents", "tokens");
  for (int bits = 0; bits <= 64; ++bits) {
    const Bucket& bucket = buckets[bits];
    if (bucket.documents == 0) continue;
    const int64_t low = bits == 0 ? 0 : int64_t{1} << (bits - 1);
    const double share = static_cast<double>(bucket.tokens) / static_cast<double>(tokens);
    fmt::print("{:>24}  {:>10}  {:>7.1f}%  {:=<{}}\n", fmt::format("{} - {}", low, std::max<int64_t>(2 * low - 1, 0)),
               bucket.documents, 100 * share, "", static_cast<int>(40 * share));
  }
}

// How many sequences it makes, and how much of them is padding.
void PrintPacking(const Dataset& dataset, const DataInfoOptions& options) {
  fmt::print("\n{:>24}  {:>24}  {:>24}\n", "packed in sequences of", "data.packing=SEQUENTIAL",
             "data.packing=BEST_FIT");
  for (const int64_t length : options.sequence_lengths) {
    fmt::print("{:>24}", length);
    for (const PackingKind kind : {PackingKind::kSequential, PackingKind::kBestFit}) {
      const auto packer = MakePacker(dataset, 0, dataset.documents(),
                                     {.length = length, .alignment = options.select_block, .kind = kind});
      fmt::print("  {:>24}", fmt::format("{}, padding {:.1f}%", packer->size(), 100 * PaddingShare(*packer, length)));
    }
    fmt::print("\n");
  }
}

}  // namespace

int RunDataInfo(const DataInfoOptions& options) {
  const std::string& path = options.path;
  const Dataset dataset = OpenDataset(DetectFormat(path), path);
  const std::optional<DatasetRecord> record = RecordOf(dataset);
  std::vector<int64_t> lengths(dataset.documents());
  for (int64_t i = 0; i < dataset.documents(); ++i) lengths[i] = dataset.DocumentLength(i);
  std::sort(lengths.begin(), lengths.end());
  const int32_t largest = LargestToken(dataset);

  fmt::print("file         {}\n", dataset.path());
  if (dataset.files().size() > 1) fmt::print("files        {}\n", dataset.files().size());
  fmt::print("format       {}, tokens of {}\n", dataset.format(), TokenTypeName(dataset.type()));
  fmt::print("documents    {}\n", dataset.documents());
  fmt::print("tokens       {}\n", dataset.tokens());
  if (record) {
    fmt::print("tokenizer    {}{}\n", record->tokenizer,
               record->tokenizer_hash.empty() ? "" : fmt::format(", model {}", record->tokenizer_hash));
  }
  fmt::print("largest id   {} (model.vocab must be above it)\n", largest);
  fmt::print("lengths      shortest {}, median {}, mean {:.1f}, longest {}\n", lengths.front(),
             lengths[lengths.size() / 2], static_cast<double>(dataset.tokens()) / static_cast<double>(lengths.size()),
             lengths.back());
  PrintHistogram(lengths, dataset.tokens());
  PrintPacking(dataset, options);
  return 0;
}

}  // namespace longspan
