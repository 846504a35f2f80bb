#include "launch/data/find_files.h"

#include <dirent.h>
#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "runtime/error.h"

namespace longspan {
namespace {

bool Matches(const std::vector<std::string>& patterns, const std::string& path, const std::string& name,
             bool is_folder) {
  return std::any_of(patterns.begin(), patterns.end(), [&](std::string pattern) {
    while (is_folder && pattern.ends_with('/')) pattern.pop_back();
    const bool whole_path = pattern.find('/') != std::string::npos;
    return fnmatch(pattern.c_str(), whole_path ? path.c_str() : name.c_str(), 0) == 0;
  });
}

class Finder {
 public:
  explicit Finder(const FileSelection& selection) : selection_(selection) {}

  FoundFiles Find() {
    struct stat status {};
    for (const std::string& path : selection_.skip) {
      if (stat(path.c_str(), &status) == 0) seen_.insert({status.st_dev, status.st_ino});
    }
    for (const std::string& input : selection_.inputs) {
      if (stat(input.c_str(), &status) != 0) Fail(ExitCode::kIo, "{}: cannot read: {}", input, std::strerror(errno));
      if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
        Fail(ExitCode::kIo, "{}: expected a file or a folder, found a pipe or a device; copy it to a file", input);
      }
      Take(input, status);
    }
    return std::move(found_);
  }

 private:
  // A file, or what is in a folder. Folders and files are known by device and number, so each is taken once and links
  // cannot lead round in a circle.
  void Take(const std::string& path, const struct stat& status) {
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return;
    if (!seen_.insert({status.st_dev, status.st_ino}).second) return;
    if (S_ISDIR(status.st_mode)) {
      Search(path);
    } else {
      found_.files.push_back({path, status.st_size});
    }
  }

  void Search(const std::string& folder) {
    DIR* open = opendir(folder.c_str());
    if (open == nullptr) return NoteUnreadable(folder);
    std::vector<std::string> names;
    while (const dirent* entry = readdir(open)) names.emplace_back(entry->d_name);
    closedir(open);
    std::sort(names.begin(), names.end());

    for (const std::string& name : names) {
      if (name == "." || name == "..") continue;
      const std::string path = folder.ends_with('/') ? folder + name : folder + '/' + name;
      struct stat status {};
      const bool readable = stat(path.c_str(), &status) == 0;
      if (Matches(selection_.exclude, path, name, readable && S_ISDIR(status.st_mode))) continue;
      if (!readable) {
        NoteUnreadable(path);
        continue;
      }
      const bool is_file = S_ISREG(status.st_mode);
      if (is_file && !selection_.include.empty() && !Matches(selection_.include, path, name, false)) continue;
      Take(path, status);
    }
  }

  void NoteUnreadable(const std::string& path) {
    if (found_.unreadable++ == 0) found_.first_unreadable = path;
  }

  const FileSelection& selection_;
  FoundFiles found_;
  std::set<std::pair<dev_t, ino_t>> seen_;
};

}  // namespace

FoundFiles FindFiles(const FileSelection& selection) { return Finder(selection).Find(); }

}  // namespace longspan
