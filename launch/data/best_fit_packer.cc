#include <algorithm>
#include <set>

#include "launch/data/packing.h"
#include "runtime/error.h"
#include "runtime/rounding.h"

namespace longspan {
namespace {

class BestFitPacker : public Packer {
 public:
  BestFitPacker(const Dataset& dataset, int64_t first, int64_t last, const Packing& packing)
      : dataset_(dataset), first_(first), packing_(packing) {
    if (last - first > int64_t{1} << 32) {
      Fail(ExitCode::kData, "{}: data.packing = BEST_FIT packs at most 2^32 documents, found {}; set it to SEQUENTIAL",
           dataset.path(), last - first);
    }
    std::vector<Part> rests;
    for (int64_t document = first; document < last; ++document) {
      const int64_t length = dataset.DocumentLength(document);
      tokens_ += length;
      for (int64_t chunk = 0; chunk * packing.length < length; ++chunk) {
        const Part part = {static_cast<uint32_t>(document - first), static_cast<uint32_t>(chunk)};
        ++pieces_;
        // What fills more than the whole blocks of a sequence has it to itself.
        if (TokensOf(part) > Room() * packing.alignment) {
          begins_.push_back(parts_.size());
          parts_.push_back(part);
        } else {
          rests.push_back(part);
        }
      }
    }
    Pack(rests);
    size_ = std::ssize(begins_);
    begins_.push_back(parts_.size());
    begins_.shrink_to_fit();
  }

  std::vector<Piece> PiecesOf(int64_t sequence) const override {
    std::vector<Piece> pieces;
    int64_t position = 0;
    for (size_t i = begins_[sequence]; i < begins_[sequence + 1]; ++i) {
      const int64_t tokens = TokensOf(parts_[i]);
      pieces.push_back({first_ + parts_[i].document, parts_[i].chunk * packing_.length, position, tokens});
      position = RoundUp(position + tokens, packing_.alignment);
    }
    return pieces;
  }

 private:
  // Of a document, its tokens from chunk * S on, at most S.
  struct Part {
    uint32_t document;  // from first_ on
    uint32_t chunk;
  };

  int64_t TokensOf(const Part& part) const {
    return std::min(packing_.length, dataset_.DocumentLength(first_ + part.document) - part.chunk * packing_.length);
  }
  int64_t Room() const { return packing_.length / packing_.alignment; }  // of a sequence, in blocks
  int64_t BlocksOf(const Part& part) const { return CeilDiv(TokensOf(part), packing_.alignment); }

  void Pack(const std::vector<Part>& rests) {
    const auto count = static_cast<uint32_t>(rests.size());
    LS_CHECK(rests.size() < UINT32_MAX, "{}: too many documents to pack", dataset_.path());
    // The longest first, those of one length as they come.
    std::vector<uint32_t> begin(Room() + 2);  // by blocks
    for (const Part& part : rests) ++begin[Room() - BlocksOf(part) + 1];
    for (size_t i = 1; i < begin.size(); ++i) begin[i] += begin[i - 1];
    std::vector<uint32_t> order(count);
    for (uint32_t i = 0; i < count; ++i) order[begin[Room() - BlocksOf(rests[i])]++] = i;

    // Sequences by how many blocks are left: of each number a list, the last one first.
    constexpr uint32_t kNone = UINT32_MAX;
    std::vector<uint32_t> last(Room() + 1, kNone), before, of(count), pieces;
    std::set<int64_t> left;  // numbers with a list
    for (const uint32_t i : order) {
      const int64_t blocks = BlocksOf(rests[i]);
      const auto found = left.lower_bound(blocks);
      int64_t room = Room();
      auto sequence = static_cast<uint32_t>(before.size());
      if (found == left.end()) {
        before.push_back(kNone);
        pieces.push_back(0);
      } else {
        room = *found;
        sequence = last[room];
        last[room] = before[sequence];
        if (last[room] == kNone) left.erase(found);
      }
      of[i] = sequence;
      ++pieces[sequence];
      room -= blocks;
      if (room == 0) continue;
      if (last[room] == kNone) left.insert(room);
      before[sequence] = last[room];
      last[room] = sequence;
    }

    // Each sequence's parts side by side, as they were put in.
    const size_t packed = begins_.size();
    for (size_t sequence = 0, at = parts_.size(); sequence < pieces.size(); at += pieces[sequence++]) {
      begins_.push_back(at);
    }
    parts_.resize(parts_.size() + count);
    std::vector<size_t> next(begins_.begin() + static_cast<std::ptrdiff_t>(packed), begins_.end());
    for (const uint32_t i : order) parts_[next[of[i]]++] = rests[i];
  }

  const Dataset& dataset_;
  const int64_t first_;
  const Packing packing_;
  std::vector<Part> parts_;     // sequence after sequence
  std::vector<size_t> begins_;  // of each sequence in parts_, and the end
};

}  // namespace

std::unique_ptr<Packer> MakeBestFitPacker(const Dataset& dataset, int64_t first, int64_t last, const Packing& packing) {
  return std::make_unique<BestFitPacker>(dataset, first, last, packing);
}

}  // namespace longspan
