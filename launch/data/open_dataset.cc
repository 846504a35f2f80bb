// Which reader opens a file.
#include <filesystem>

#include "launch/data/dataset.h"
#include "launch/data/megatron.h"
#include "launch/data/token_file.h"
#include "runtime/error.h"

namespace longspan {

Dataset OpenDataset(DataFormat format, const std::string& path, const DatasetOptions& options) {
  switch (format) {
    case DataFormat::kMegatron:
      return OpenMegatron(path, options);
    case DataFormat::kLlmc:
      return OpenLlmc(path, options);
    case DataFormat::kNanogpt:
      return OpenNanogpt(path, options);
    case DataFormat::kFibonacci:
    case DataFormat::kRetrieval:
      break;
  }
  Fail(ExitCode::kConfig, "data.format: what is generated reads no file, found {}", path);
}

DataFormat DetectFormat(const std::string& path) {
  if (std::filesystem::exists(MegatronPrefix(path) + ".idx")) return DataFormat::kMegatron;
  const MappedFile file(path);
  return IsLlmc(file) ? DataFormat::kLlmc : DataFormat::kNanogpt;
}

}  // namespace longspan
