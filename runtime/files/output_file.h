// OutputFile: a file that appears under its name only when it is complete.
//
// Bytes go to PATH.partial; Commit() flushes them to the disk and renames. Without Commit the destructor removes them.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <type_traits>

namespace longspan {

class OutputFile {
 public:
  explicit OutputFile(const std::string& path);  // throws Error (io); makes no folders
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::string& path() const { return path_; }
  void Write(const void* data, int64_t bytes);  // throws Error (io)
  template <typename T>
  void Write(const T& value) {
    static_assert(std::is_arithmetic_v<T>);
    Write(&value, sizeof(T));
  }
  void Commit();  // throws Error (io); replaces an older file of the name

 private:
  std::string path_, partial_;
  std::FILE* file_;
};

}  // namespace longspan
