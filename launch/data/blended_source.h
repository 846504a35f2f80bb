// BlendedSource: several sources as one, each with a weight; their sequences are numbered one after another.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launch/data/sequence_source.h"

namespace longspan {

struct WeightedSource {
  std::string name;
  double weight;
  std::unique_ptr<SequenceSource> source;
};

// Of one source it is that source; none gives none. Their sequences are of one length.
std::unique_ptr<SequenceSource> Blend(std::vector<WeightedSource> sources);

}  // namespace longspan
