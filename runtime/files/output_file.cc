#include "runtime/files/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/error.h"

namespace longspan {

OutputFile::OutputFile(const std::string& path)
    : path_(path), partial_(path + ".partial"), file_(std::fopen(partial_.c_str(), "wb")) {
  if (file_ == nullptr) Fail(ExitCode::kIo, "{}: cannot create: {}", partial_, std::strerror(errno));
}

OutputFile::~OutputFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  unlink(partial_.c_str());
}

void OutputFile::Write(const void* data, int64_t bytes) {
  if (bytes > 0 && std::fwrite(data, 1, bytes, file_) != static_cast<size_t>(bytes)) {
    Fail(ExitCode::kIo, "{}: cannot write {} bytes: {}", partial_, bytes, std::strerror(errno));
  }
}

void OutputFile::Commit() {
  if (std::fflush(file_) != 0 || fsync(fileno(file_)) != 0) {
    Fail(ExitCode::kIo, "{}: cannot write: {}", partial_, std::strerror(errno));
  }
  if (std::rename(partial_.c_str(), path_.c_str()) != 0) {
    Fail(ExitCode::kIo, "{}: cannot rename to {}: {}", partial_, path_, std::strerror(errno));
  }
  std::fclose(file_);
  file_ = nullptr;
}

}  // namespace longspan
