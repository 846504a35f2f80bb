// Which files a data set is made of: the files named, and those found in the folders named.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

// Patterns are those of the shell (* ? [a-z]); one without '/' is held against the name, one with '/' against the path
// as listed, where * also crosses '/'. A '/' at the end is not part of the pattern: it matches folders alone.
struct FileSelection {
  std::vector<std::string> inputs;   // folders (searched to the bottom) and files (taken whatever the patterns say)
  std::vector<std::string> include;  // take only files that match one of these; empty = all
  std::vector<std::string> exclude;  // leave out files and folders that match one of these
  std::vector<std::string> skip;     // paths of files never taken, by whatever name they are reached; need not exist
};

struct FoundFile {
  std::string path;
  int64_t bytes;
};

struct FoundFiles {
  std::vector<FoundFile> files;
  int64_t unreadable = 0;        // folders and links that could not be followed
  std::string first_unreadable;  // "" when there is none
};

// In the order of the inputs, a folder's entries by name (bytes): the same on every file system. A file reached twice
// (by links) is taken once. Throws Error (io) when an input does not exist, or is neither a file nor a folder.
FoundFiles FindFiles(const FileSelection& selection);

}  // namespace longspan
