// Packing: which pieces of which documents make each sequence of S tokens.
//
// Every piece starts at a multiple of `alignment` (b, or 1 when attention may cross documents); the gap before the next
// is padding. A document that is too long goes on in other sequences, each of its pieces counting as a document of its
// own: no token is lost, only the label of each piece's last. All is a function of the documents' lengths.
//
//   SEQUENTIAL  documents follow each other in file order; what does not fit goes on in the next sequence. Only the
//   last
//               sequence has padding besides the gaps.
//   BEST_FIT    documents longer than S are cut into pieces of S and a rest; then pieces, the longest first, go where
//               the least place is left that holds them, or begin a sequence (best-fit decreasing). Documents that fit
//               in a sequence stay whole.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/data/dataset.h"

namespace longspan {

struct Packing {
  int64_t length = 0;  // S
  int64_t alignment = 1;
  bool document_masks = true;
  PackingKind kind = PackingKind::kSequential;
};

struct Piece {
  int64_t document, offset;  // of the dataset
  int64_t position;          // in the sequence
  int64_t tokens;            // 1 or more
};

class Packer {
 public:
  virtual ~Packer() = default;
  virtual std::vector<Piece> PiecesOf(int64_t sequence) const = 0;  // in ascending positions
  int64_t size() const { return size_; }                            // sequences
  int64_t tokens() const { return tokens_; }                        // of all pieces
  int64_t pieces() const { return pieces_; }

 protected:
  int64_t size_ = 0, tokens_ = 0, pieces_ = 0;
};

// Of the documents [first, last) of the dataset, which outlives it.
std::unique_ptr<Packer> MakePacker(const Dataset& dataset, int64_t first, int64_t last, const Packing& packing);
std::unique_ptr<Packer> MakeSequentialPacker(const Dataset& dataset, int64_t first, int64_t last,
                                             const Packing& packing);
std::unique_ptr<Packer> MakeBestFitPacker(const Dataset& dataset, int64_t first, int64_t last, const Packing& packing);

// Of all places of the sequences, those without a token.
double PaddingShare(const Packer& packer, int64_t length);

}  // namespace longspan
