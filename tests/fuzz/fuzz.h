// What the fuzz targets share. Whatever the bytes, a parser returns, or throws an Error that blames them; all else, a
// broken rule of the program's own too, is a finding.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

#include "runtime/error.h"

namespace longspan {

template <typename Call>
void Blaming(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    if (error.code() != ExitCode::kData && error.code() != ExitCode::kConfig) throw;
  }
}

// A folder in memory for the files of one process.
class FuzzFolder {
 public:
  FuzzFolder() {
    const bool memory = std::filesystem::is_directory("/dev/shm");
    path_ = (memory ? std::string("/dev/shm") : std::filesystem::temp_directory_path().string()) + "/longspan_XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~FuzzFolder() { std::filesystem::remove_all(path_); }
  // Returns its path.
  std::string Write(const std::string& name, std::span<const uint8_t> bytes) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return path;
  }

 private:
  std::string path_;
};

}  // namespace longspan
