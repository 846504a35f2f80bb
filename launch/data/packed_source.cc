#include "launch/data/packed_source.h"

#include <algorithm>

#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

// Every so many sequences their beginning is kept; those between are found from there. What the dataset takes of a
// rank's memory is then little, even for short sequences of a large one.
constexpr int64_t kKept = 16;

// Where in the documents a sequence begins.
struct Cursor {
  int64_t document;
  int64_t offset;
};

class PackedSource : public SequenceSource {
 public:
  PackedSource(std::shared_ptr<const Dataset> dataset, int64_t first, int64_t last, const Packing& packing)
      : dataset_(std::move(dataset)), first_(first), last_(last), packing_(packing) {
    for (Cursor cursor = {first, 0}; cursor.document < last;) {
      const Cursor start = cursor;
      const int64_t pieces = pieces_;
      cursor = Walk(start, [&](const Cursor&, int64_t, int64_t taken) {
        ++pieces_;
        tokens_ += taken;
      });
      if (pieces_ == pieces) continue;
      if (size_ % kKept == 0) starts_.push_back(start);
      ++size_;
    }
    if (size_ == 0) Fail(ExitCode::kData, "{}: documents {} to {} hold no token", dataset_->path(), first, last);
  }

  int64_t size() const override { return size_; }
  int64_t length() const override { return packing_.length; }
  int64_t labels() const override { return tokens_ - pieces_; }

  void Fill(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> doc_start) const override {
    int64_t end = 0, document_start = 0;
    // The gap from the last document's end to `position` belongs to that document.
    const auto pad = [&](int64_t position) {
      std::fill(tokens.begin() + end, tokens.begin() + position, 0);
      std::fill(targets.begin() + end, targets.begin() + position, -1);
      std::fill(doc_start.begin() + end, doc_start.begin() + position, document_start);
    };
    Walk(StartOf(index), [&](const Cursor& from, int64_t position, int64_t taken) {
      pad(position);
      end = position + taken;
      if (packing_.document_masks) document_start = position;
      dataset_->Read(from.document, from.offset, tokens.subspan(position, taken));
      std::copy(tokens.begin() + position + 1, tokens.begin() + end, targets.begin() + position);
      targets[end - 1] = -1;
      std::fill(doc_start.begin() + position, doc_start.begin() + end, document_start);
    });
    pad(length());
  }

  std::string Summary() const override {
    const double places = static_cast<double>(size()) * static_cast<double>(length());
    return fmt::format("{} ({}, {}): {}, {} in {} of {}, padding {:.1f}%, labels {:.1f}%", dataset_->path(),
                       dataset_->format(), TokenTypeName(dataset_->type()), Count(last_ - first_, "document"),
                       Count(tokens_, "token"), Count(size(), "sequence"), length(),
                       100 * (1 - static_cast<double>(tokens_) / places), 100 * static_cast<double>(labels()) / places);
  }

 private:
  // Visits the pieces of the sequence that starts at `cursor`: visit(cursor of the piece, position, tokens). Returns
  // where the next sequence starts.
  template <typename Visit>
  Cursor Walk(Cursor cursor, Visit visit) const {
    int64_t position = 0;
    while (cursor.document < last_ && position < packing_.length) {
      const int64_t left = dataset_->DocumentLength(cursor.document) - cursor.offset;
      const int64_t taken = std::min(left, packing_.length - position);
      if (taken > 0) visit(cursor, position, taken);
      if (taken < left) return {cursor.document, cursor.offset + taken};
      cursor = {cursor.document + 1, 0};
      position = RoundUp(position + taken, packing_.alignment);
    }
    return cursor;
  }

  Cursor StartOf(int64_t index) const {
    Cursor cursor = starts_[index / kKept];
    for (int64_t i = 0; i < index % kKept; ++i) {
      cursor = Walk(cursor, [](const Cursor&, int64_t, int64_t) {});
    }
    return cursor;
  }

  const std::shared_ptr<const Dataset> dataset_;
  const int64_t first_, last_;
  const Packing packing_;
  std::vector<Cursor> starts_;  // of every kKept-th sequence
  int64_t size_ = 0;            // sequences
  int64_t tokens_ = 0;
  int64_t pieces_ = 0;  // each loses one label
};

}  // namespace

std::unique_ptr<SequenceSource> MakePackedSource(std::shared_ptr<const Dataset> dataset, int64_t first, int64_t last,
                                                 const Packing& packing) {
  return std::make_unique<PackedSource>(std::move(dataset), first, last, packing);
}

}  // namespace longspan
