#include <algorithm>

#include "launch/data/packing.h"
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

class SequentialPacker : public Packer {
 public:
  SequentialPacker(const Dataset& dataset, int64_t first, int64_t last, const Packing& packing)
      : dataset_(dataset), last_(last), packing_(packing) {
    for (Cursor cursor = {first, 0}; cursor.document < last;) {
      const Cursor start = cursor;
      const int64_t pieces = pieces_;
      cursor = Walk(start, [&](const Piece& piece) {
        ++pieces_;
        tokens_ += piece.tokens;
      });
      if (pieces_ == pieces) continue;
      if (size_ % kKept == 0) starts_.push_back(start);
      ++size_;
    }
  }

  std::vector<Piece> PiecesOf(int64_t sequence) const override {
    Cursor cursor = starts_[sequence / kKept];
    for (int64_t i = 0; i < sequence % kKept; ++i) cursor = Walk(cursor, [](const Piece&) {});
    std::vector<Piece> pieces;
    Walk(cursor, [&](const Piece& piece) { pieces.push_back(piece); });
    return pieces;
  }

 private:
  // Visits the pieces of the sequence that starts at `cursor`. Returns where the next sequence starts.
  template <typename Visit>
  Cursor Walk(Cursor cursor, Visit visit) const {
    int64_t position = 0;
    while (cursor.document < last_ && position < packing_.length) {
      const int64_t left = dataset_.DocumentLength(cursor.document) - cursor.offset;
      const int64_t taken = std::min(left, packing_.length - position);
      if (taken > 0) visit(Piece{cursor.document, cursor.offset, position, taken});
      if (taken < left) return {cursor.document, cursor.offset + taken};
      cursor = {cursor.document + 1, 0};
      position = RoundUp(position + taken, packing_.alignment);
    }
    return cursor;
  }

  const Dataset& dataset_;
  const int64_t last_;
  const Packing packing_;
  std::vector<Cursor> starts_;  // of every kKept-th sequence
};

}  // namespace

std::unique_ptr<Packer> MakeSequentialPacker(const Dataset& dataset, int64_t first, int64_t last,
                                             const Packing& packing) {
  return std::make_unique<SequentialPacker>(dataset, first, last, packing);
}

}  // namespace longspan
