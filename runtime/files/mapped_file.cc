#include "runtime/files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <utility>

#include "runtime/error.h"
#include "runtime/files/bus_error.h"

namespace longspan {

static_assert(std::endian::native == std::endian::little, "the file formats are little-endian");

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) Fail(ExitCode::kIo, "{}: cannot open: {}", path, std::strerror(errno));
  struct stat status {};
  const bool known = fstat(file, &status) == 0;
  void* data = nullptr;
  if (known && S_ISREG(status.st_mode) && status.st_size > 0) {
    data = mmap(nullptr, status.st_size, PROT_READ, MAP_SHARED, file, 0);
  }
  const int error = errno;
  close(file);
  if (!known) Fail(ExitCode::kIo, "{}: cannot read its size: {}", path, std::strerror(error));
  if (!S_ISREG(status.st_mode)) Fail(ExitCode::kIo, "{}: expected a regular file", path);
  if (data == MAP_FAILED)
    Fail(ExitCode::kIo, "{}: cannot map {} bytes: {}", path, status.st_size, std::strerror(error));
  CatchBusErrors();
  data_ = static_cast<std::byte*>(data);
  size_ = status.st_size;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace longspan
