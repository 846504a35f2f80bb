// Which files a data set is made of: the files named, and those found in the folders named.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/commands/data.h"

namespace longspan {

struct FoundFile {
  std::string path;
  int64_t bytes;
};

struct FoundFiles {
  std::vector<FoundFile> files;
  int64_t unreadable = 0;        // folders and links that could not be followed
  std::string first_unreadable;  // "" when there is none
};

// In the order of the inputs, a folder's entries by name (bytes): the same on every file system. The patterns and links
// are treated as launch/commands/data.h says. Throws Error (io) when an input does not exist.
FoundFiles FindFiles(const DataOptions& options);

}  // namespace longspan
