#include "launch/data/packing.h"

namespace longspan {

std::unique_ptr<Packer> MakePacker(const Dataset& dataset, int64_t first, int64_t last, const Packing& packing) {
  return packing.kind == PackingKind::kBestFit ? MakeBestFitPacker(dataset, first, last, packing)
                                               : MakeSequentialPacker(dataset, first, last, packing);
}

double PaddingShare(const Packer& packer, int64_t length) {
  const double places = static_cast<double>(packer.size()) * static_cast<double>(length);
  return 1 - static_cast<double>(packer.tokens()) / places;
}

}  // namespace longspan
