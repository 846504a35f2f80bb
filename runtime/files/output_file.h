// OutputFile: a file that appears under its name only when it is complete.
//
// Bytes go to PATH.partial; Commit() flushes them to the disk and renames. Without Commit the destructor removes them;
// what a killed process left is replaced by the next. PATH.partial is locked (flock) as long as it is written, so that
// a second writer of a name is refused and not mixed in; file systems without locks have only their own care.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <type_traits>

namespace longspan {

class OutputFile {
 public:
  // Throws Error (io), also when another process writes it; makes no folders.
  explicit OutputFile(const std::string& path);
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
  friend void CommitAll(std::span<OutputFile* const> files);
  void Flush();  // after which only the name can fail
  void Rename();

  std::string path_, partial_;
  std::FILE* file_;
};

// Files that mean something only together, such as data and its index, which comes after it: all are flushed before
// anything is replaced, older files go from the last on, and the new ones appear in order; a signal that ends the
// program waits meanwhile. So whoever finds the last of them finds all of one making, and what fails on the way (a full
// disk) leaves the older ones as they were. Throws Error (io).
void CommitAll(std::span<OutputFile* const> files);

}  // namespace longspan
