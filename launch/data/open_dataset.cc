// Which readers open which files.
#include <glob.h>

#include <algorithm>
#include <filesystem>

#include "launch/data/dataset.h"
#include "launch/data/megatron.h"
#include "launch/data/token_file.h"
#include "runtime/error.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

Dataset OpenOne(DataFormat format, const std::string& path, const DatasetOptions& options) {
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

bool IsPattern(const std::string& path) {
  std::error_code error;  // what cannot be looked at is not there
  return path.find_first_of("*?[") != std::string::npos && !fs::exists(path, error) &&
         !fs::exists(path + ".idx", error);
}

// Those that match, by name.
std::vector<std::string> Matches(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  const int result = glob(pattern.c_str(), GLOB_NOSORT | GLOB_ERR, nullptr, &found);
  if (result == GLOB_ABORTED) Fail(ExitCode::kIo, "{}: a folder on the way cannot be read", pattern);
  if (result == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  std::sort(paths.begin(), paths.end());
  if (paths.empty()) Fail(ExitCode::kIo, "{}: expected files of such names, found none", pattern);
  return paths;
}

}  // namespace

Dataset OpenDataset(DataFormat format, const std::string& path, const DatasetOptions& options) {
  if (!IsPattern(path)) return OpenOne(format, path, options);
  const bool megatron = format == DataFormat::kMegatron;
  std::vector<Dataset> datasets;
  for (const std::string& file : Matches(megatron ? MegatronPrefix(path) + ".idx" : path)) {
    datasets.push_back(OpenOne(format, file, options));
  }
  return Dataset::Join(path, std::move(datasets));
}

DataFormat DetectFormat(const std::string& path) {
  if (IsPattern(path)) {
    glob_t found{};
    const bool megatron = glob((MegatronPrefix(path) + ".idx").c_str(), 0, nullptr, &found) == 0;
    globfree(&found);
    return megatron ? DataFormat::kMegatron : DetectFormat(Matches(path).front());
  }
  if (fs::exists(MegatronPrefix(path) + ".idx")) return DataFormat::kMegatron;
  const MappedFile file(path);
  return IsLlmc(file) ? DataFormat::kLlmc : DataFormat::kNanogpt;
}

}  // namespace longspan
