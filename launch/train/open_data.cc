#include "launch/train/open_data.h"

#include <vector>

#include "launch/data/dataset.h"
#include "launch/job/agreement.h"

namespace longspan {

Sources OpenData(const RunConfig& config, Communicator& world, Stopping& stopping) {
  Sources sources = OpenSources(config.data, config.model.vocab, config.model.nsa.select_block);
  std::vector<Claim> claims;
  for (const auto& [key, dataset] : sources.files) {
    claims.push_back({key, dataset->Fingerprint(), dataset->path()});
  }
  RequireAgreement(world, ExitCode::kData, "the data", claims);
  CheckTokens(sources, config.model.vocab, world.rank(), world.size(), [&] { return stopping.wish() != 0; });
  return sources;
}

}  // namespace longspan
