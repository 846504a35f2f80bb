// The datasets of a run, as keys of `data` name them: one, or the entries of data.blend:
//
//   "WEIGHT PATH [validation=PATH | validation_fraction=F]"
#pragma once

#include <string>
#include <vector>

#include "launch/config/run_config.h"

namespace longspan {

struct BlendPart {
  double weight = 1;       // above 0; a share of the sequences is weight / the sum of all
  std::string train;       // as data.train
  std::string validation;  // empty = the last `validation_fraction` of the documents
  double validation_fraction = 0;
  std::string key;  // "data.train", "data.blend[0]"
};

// Reads an entry into `part`, which keeps what it does not say. Returns what was expected, "" when all is good.
std::string ReadBlendEntry(const std::string& entry, BlendPart* part);

// Entries must be good.
std::vector<BlendPart> PartsOf(const DataConfig& data);

}  // namespace longspan
