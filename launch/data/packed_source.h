// PackedSource: the documents of a dataset packed into sequences (launch/data/packing.h). Padding has id 0 and no
// label, and belongs to the document before it.
#pragma once

#include <memory>

#include "launch/data/dataset.h"
#include "launch/data/packing.h"
#include "launch/data/sequence_source.h"

namespace longspan {

// Over the documents [first, last) of the dataset. Throws Error (data) when they hold no token.
std::unique_ptr<SequenceSource> MakePackedSource(std::shared_ptr<const Dataset> dataset, int64_t first, int64_t last,
                                                 const Packing& packing);

}  // namespace longspan
