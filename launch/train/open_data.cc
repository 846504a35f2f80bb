#include "launch/train/open_data.h"

#include "launch/data/dataset.h"

namespace longspan {

std::vector<Claim> ClaimsOf(const Sources& sources) {
  std::vector<Claim> claims;
  for (const auto& [key, dataset] : sources.files) {
    claims.push_back({key, dataset->Fingerprint(), dataset->path()});
  }
  return claims;
}

Sources OpenData(const RunConfig& config, Communicator& world, const std::function<bool()>& stop, bool check) {
  Sources sources = OpenSources(config.data, config.model.vocab, config.model.nsa.select_block);
  RequireAgreement(world, ExitCode::kData, "the data", ClaimsOf(sources));
  if (check) CheckTokens(sources, config.model.vocab, world.rank(), world.size(), stop);
  return sources;
}

}  // namespace longspan
