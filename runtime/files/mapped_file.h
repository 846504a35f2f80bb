// MappedFile: a file read through memory, shared by all processes of a machine and loaded page by page as it is
// touched. A file that is cut meanwhile ends the process that reads it (bus_error.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace longspan {

class MappedFile {
 public:
  MappedFile() = default;
  // Throws Error (io) when `path` cannot be opened, or is not a regular file. An empty file maps to zero bytes.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::string& path() const { return path_; }
  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

  // The little-endian number at byte `offset`, at any alignment. The caller has checked the size.
  template <typename T>
  T Read(int64_t offset) const {
    T value;
    std::memcpy(&value, data_ + offset, sizeof(T));
    return value;
  }

 private:
  std::string path_;
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace longspan
