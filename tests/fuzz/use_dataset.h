// A dataset that opened, read as training reads it.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "launch/data/dataset.h"
#include "launch/data/packed_source.h"

namespace longspan {

inline void Use(Dataset opened) {
  const auto dataset = std::make_shared<const Dataset>(std::move(opened));
  dataset->Fingerprint();
  dataset->FindBadToken();
  for (const bool masks : {true, false}) {
    const PackingKind kind = masks ? PackingKind::kBestFit : PackingKind::kSequential;
    const auto source = MakePackedSource(dataset, 0, dataset->documents(), {64, masks ? 8 : 1, masks, kind});
    std::vector<int32_t> tokens(64), targets(64), doc_start(64);
    for (const int64_t index : {int64_t{0}, source->size() / 2, source->size() - 1}) {
      source->Fill(index, tokens, targets, doc_start);
    }
    source->Summary();
  }
}

}  // namespace longspan
