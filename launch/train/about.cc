#include "launch/train/about.h"

#include "launch/config/config.h"
#include "launch/data/dataset_record.h"
#include "launch/job/world.h"

namespace longspan {

Manifest AboutRun(const RunConfig& config, const Job& job, DType dtype, const Sources& sources,
                  const std::string& version) {
  Manifest about;
  about.program = version;
  about.libraries = MpiVersion();
  about.ranks = job.mesh().world().size();
  about.dp = job.mesh().dp_size();
  about.cp = job.mesh().cp_size();
  about.device = job.device().name();
  about.dtype = DTypeName(dtype);
  about.config = ConfigText(config);
  for (const auto& [key, dataset] : sources.files) {
    about.data.push_back({key, dataset->Fingerprint(), dataset->path()});
    if (const auto record = RecordOf(*dataset)) {
      about.data.push_back({"tokenizer of " + key, record->tokenizer + " " + record->tokenizer_hash, ""});
    }
  }
  return about;
}

}  // namespace longspan
