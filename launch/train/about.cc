#include "launch/train/about.h"

#include "launch/config/config.h"
#include "launch/data/dataset_record.h"
#include "launch/job/world.h"
#include "parallel/comm/nccl.h"

namespace longspan {

std::vector<DataClaim> DataClaims(const Sources& sources) {
  std::vector<DataClaim> claims;
  for (const auto& [key, dataset] : sources.files) {
    claims.push_back({key, dataset->Fingerprint(), dataset->path()});
    if (const auto record = RecordOf(*dataset)) {
      claims.push_back({"tokenizer of " + key, record->tokenizer + " " + record->tokenizer_hash, ""});
    }
  }
  return claims;
}

std::string TokenizerModelOf(const Sources& sources) {
  for (const Sources::File& file : sources.files) {
    std::string model = TokenizerModelOf(*file.dataset);
    if (!model.empty()) return model;
  }
  return "";
}

Manifest AboutRun(const RunConfig& config, const Job& job, DType dtype, const Sources& sources,
                  const std::string& version) {
  Manifest about;
  about.program = version;
  about.libraries = MpiVersion();
  if (const std::string nccl = NcclVersion(); !nccl.empty()) about.libraries += ", " + nccl;
  about.ranks = job.mesh().world().size();
  about.dp = job.mesh().dp_size();
  about.cp = job.mesh().cp_size();
  about.device = job.device().name();
  about.dtype = DTypeName(dtype);
  about.config = ConfigText(config);
  about.data = DataClaims(sources);
  return about;
}

}  // namespace longspan
