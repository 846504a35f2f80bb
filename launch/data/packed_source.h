// PackedSource: the documents of a dataset packed into sequences of S tokens, one after another in file order.
//
// Every document starts at a multiple of `alignment` (b, or 1 when attention may cross documents); the gap before it is
// padding, which belongs to the document before, has id 0 and no label. A document that does not fit continues in the
// next sequence, where its rest counts as a document of its own. Only the last sequence has padding besides.
#pragma once

#include <memory>
#include <vector>

#include "launch/data/dataset.h"
#include "launch/data/sequence_source.h"

namespace longspan {

struct Packing {
  int64_t length = 0;  // S
  int64_t alignment = 1;
  bool document_masks = true;
};

// Over the documents [first, last) of the dataset. Throws Error (data) when they hold no token.
std::unique_ptr<SequenceSource> MakePackedSource(std::shared_ptr<const Dataset> dataset, int64_t first, int64_t last,
                                                 const Packing& packing);

}  // namespace longspan
