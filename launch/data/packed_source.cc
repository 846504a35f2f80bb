#include "launch/data/packed_source.h"

#include <algorithm>
#include <utility>

#include "runtime/count.h"
#include "runtime/error.h"

namespace longspan {
namespace {

class PackedSource : public SequenceSource {
 public:
  PackedSource(std::shared_ptr<const Dataset> dataset, int64_t first, int64_t last, const Packing& packing)
      : dataset_(std::move(dataset)),
        documents_(last - first),
        packing_(packing),
        packer_(MakePacker(*dataset_, first, last, packing)) {
    if (size() == 0) Fail(ExitCode::kData, "{}: documents {} to {} hold no token", dataset_->path(), first, last);
  }

  int64_t size() const override { return packer_->size(); }
  int64_t length() const override { return packing_.length; }
  int64_t labels() const override { return packer_->tokens() - packer_->pieces(); }  // each piece loses one

  void Fill(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> doc_start) const override {
    int64_t end = 0, document_start = 0;
    // The gap from the last document's end to `position` belongs to that document.
    const auto pad = [&](int64_t position) {
      std::fill(tokens.begin() + end, tokens.begin() + position, 0);
      std::fill(targets.begin() + end, targets.begin() + position, -1);
      std::fill(doc_start.begin() + end, doc_start.begin() + position, document_start);
    };
    for (const Piece& piece : packer_->PiecesOf(index)) {
      pad(piece.position);
      end = piece.position + piece.tokens;
      if (packing_.document_masks) document_start = piece.position;
      dataset_->Read(piece.document, piece.offset, tokens.subspan(piece.position, piece.tokens));
      std::copy(tokens.begin() + piece.position + 1, tokens.begin() + end, targets.begin() + piece.position);
      targets[end - 1] = -1;
      std::fill(doc_start.begin() + piece.position, doc_start.begin() + end, document_start);
    }
    pad(length());
  }

  std::string Summary() const override {
    const double places = static_cast<double>(size()) * static_cast<double>(length());
    return fmt::format("{} ({}, {}): {}, {} in {} of {}{}, padding {:.1f}%, labels {:.1f}%", dataset_->path(),
                       dataset_->format(), TokenTypeName(dataset_->type()), Count(documents_, "document"),
                       Count(packer_->tokens(), "token"), Count(size(), "sequence"), length(),
                       packing_.kind == PackingKind::kBestFit ? " by best fit" : "",
                       100 * PaddingShare(*packer_, length()), 100 * static_cast<double>(labels()) / places);
  }

 private:
  const std::shared_ptr<const Dataset> dataset_;
  const int64_t documents_;
  const Packing packing_;
  const std::unique_ptr<Packer> packer_;
};

}  // namespace

std::unique_ptr<SequenceSource> MakePackedSource(std::shared_ptr<const Dataset> dataset, int64_t first, int64_t last,
                                                 const Packing& packing) {
  return std::make_unique<PackedSource>(std::move(dataset), first, last, packing);
}

}  // namespace longspan
