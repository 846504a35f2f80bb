#include "launch/train/replicas.h"

#include <algorithm>
#include <map>
#include <vector>

#include "launch/job/world.h"
#include "parallel/comm/texts.h"
#include "runtime/error.h"

namespace longspan {

void RequireEqualReplicas(Job& job, int64_t step, uint64_t hash) {
  Communicator& world = job.mesh().host_world();
  const auto stream = MakeCpuDevice()->MakeStream("replicas");
  std::vector<uint64_t> all(world.size());
  const auto view = [](uint64_t* values, int64_t count) {
    return Tensor(values, DType::kI64, DeviceKind::kCpu, {count});
  };
  world.AllGather(*stream, view(&hash, 1), view(all.data(), world.size()));
  stream->Synchronize();
  if (std::count(all.begin(), all.end(), all[0]) == world.size()) return;

  const std::vector<std::string> nodes = GatherTexts(world, NodeName());
  std::map<uint64_t, int> ranks;
  for (const uint64_t x : all) ++ranks[x];
  const auto most =
      std::max_element(ranks.begin(), ranks.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  // Without a majority each may be the right one.
  const bool majority = 2 * most->second > world.size();
  std::string others;
  for (int rank = 0; rank < world.size(); ++rank) {
    if (majority && all[rank] == most->first) continue;
    others += fmt::format("{}rank {} on {} has {:016x}", others.empty() ? "" : ", ", rank, nodes[rank], all[rank]);
  }
  throw Error(ExitCode::kRankFailed,
              fmt::format("{}step {}: replicas have different weights: {}{}; memory or a link has failed there: resume "
                          "from the last checkpoint, without that node",
                          ProcessPrefix(), step, others,
                          majority ? fmt::format(", the other {} have {:016x}", most->second, most->first) : ""));
}

}  // namespace longspan
