// Where a run goes on: the newest complete checkpoint, wherever it lies.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "launch/checkpoint/tier.h"
#include "launch/config/run_config.h"

namespace longspan {

struct Resumption {
  std::optional<Tier::Found> found;
  std::vector<std::string> broken;  // paths on the disk, of those that were passed over
};

// Collective. Of `disk` and `memory`, that of the latest step (the disk's of the same) of which every byte is as it was
// written; says which are passed over and why, and what this run has otherwise. Throws Error: (data) when there are
// checkpoints on the disk, and none anywhere is good; (configuration) naming each difference when the newest is of
// another model, tokenizer or dataset.
Resumption FindCheckpoint(const Tier& disk, const Tier& memory, const RunConfig& config,
                          const std::vector<DataClaim>& data, const std::function<void(const std::string&)>& say);

}  // namespace longspan
