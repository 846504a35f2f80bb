#include "launch/checkpoint/folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "runtime/error.h"
#include "runtime/files/checksum.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "step-";
constexpr const char* kPartial = ".partial";

// The step of "step-00000017", -1 of other names.
int64_t StepOf(const std::string& name) {
  if (!name.starts_with(kPrefix)) return -1;
  const std::string digits = name.substr(std::strlen(kPrefix));
  const bool number =
      digits.size() >= 8 && digits.size() <= 18 && digits.find_first_not_of("0123456789") == std::string::npos;
  return number ? std::stoll(digits) : -1;
}

[[noreturn]] void FailWith(const std::string& path, const char* what, int error) {
  Fail(ExitCode::kIo, "{}: {}: {}", path, what, std::strerror(error));
}

// What was written to the open file; of a folder, the names within it. Closes it.
void Sync(int file, const std::string& path) {
  if (file < 0) FailWith(path, "cannot be opened", errno);
  const int error = fsync(file) == 0 ? 0 : errno;
  close(file);
  if (error != 0 && error != EINVAL) FailWith(path, "cannot be flushed", error);  // EINVAL: of a file system without
}

void SyncFolder(const std::string& path) { Sync(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), path); }

void Rename(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) FailWith(from, "cannot be renamed", errno);
}

void RemoveAll(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) FailWith(path, "cannot be removed", error.value());
}

// In one step by name: half of it never looks like a checkpoint.
void RemoveComplete(const std::string& path) {
  const std::string going = path + ".removed" + kPartial;
  RemoveAll(going);
  Rename(path, going);
  RemoveAll(going);
}

}  // namespace

std::string CheckpointFolder::PathOf(int64_t step) const { return fmt::format("{}/{}{:08}", path_, kPrefix, step); }

std::vector<CheckpointFolder::Found> CheckpointFolder::List() const {
  std::vector<Found> found;
  std::error_code error;
  fs::directory_iterator entries(path_, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const int64_t step = StepOf(entries->path().filename().string());
    if (step >= 0) found.push_back({step, entries->path().string()});
  }
  if (error && error != std::errc::no_such_file_or_directory) FailWith(path_, "cannot be read", error.value());
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.step > b.step; });
  return found;
}

void CheckpointFolder::Begin(int64_t step) const {
  std::error_code error;
  const bool made = fs::create_directories(path_, error);
  if (error) FailWith(path_, "cannot be made", error.value());
  if (made) SyncFolder(fs::path(path_).parent_path().string());
  std::vector<std::string> left;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kPartial)) left.push_back(entry.path().string());
  }
  if (error) FailWith(path_, "cannot be read", error.value());
  for (const std::string& path : left) RemoveAll(path);
  const std::string partial = PartialOf(step);
  if (!fs::create_directory(partial, error)) FailWith(partial, "cannot be made", error.value());
}

void CheckpointFolder::Commit(const Manifest& manifest) const {
  const std::string path = PathOf(manifest.state.step), partial = PartialOf(manifest.state.step);
  const auto write = [](const std::string& name, const std::string& text) {
    OutputFile file(name);
    file.Write(text.data(), static_cast<int64_t>(text.size()));
    file.Commit();
  };
  write(fmt::format("{}/{}", partial, kManifestName), manifest.Text());
  SyncFolder(partial);
  if (fs::exists(path)) RemoveComplete(path);
  Rename(partial, path);
  SyncFolder(path_);
  write(path_ + "/latest", fs::path(path).filename().string() + "\n");
}

void CheckpointFolder::Abandon(int64_t step) const noexcept {
  std::error_code error;
  fs::remove_all(PartialOf(step), error);
}

void CheckpointFolder::Retain(int64_t last, int64_t every) const {
  const std::vector<Found> found = List();
  for (size_t i = last; i < found.size(); ++i) {
    if (every == 0 || found[i].step % every != 0) RemoveComplete(found[i].path);
  }
}

void CheckpointFolder::SetAside(const std::string& checkpoint) const {
  const std::string broken = checkpoint + ".broken";
  RemoveAll(broken);
  Rename(checkpoint, broken);
}

void CheckpointFolder::Remove(const std::string& checkpoint) const { RemoveComplete(checkpoint); }

std::string NewestCheckpoint(const std::string& path) {
  if (!fs::is_directory(path)) Fail(ExitCode::kIo, "{}: expected a folder", path);
  for (const std::string& folder : {path, path + "/checkpoints"}) {
    const auto found = CheckpointFolder(folder).List();
    if (!found.empty()) return found[0].path;
  }
  if (!fs::exists(path + "/" + kManifestName)) {
    Fail(ExitCode::kIo, "{}/{}: No such file: expected a checkpoint or a run that has one{}", path, kManifestName,
         fs::exists(path + "/config.json") ? "; `longspan import` makes one of a model in Hugging Face's layout" : "");
  }
  return path;
}

void WriteTokenizerModel(const std::string& folder, const std::string& model, Manifest* manifest) {
  if (model.empty()) return;
  OutputFile file(folder + "/" + kTokenizerName);
  file.Write(model.data(), std::ssize(model));
  file.Commit();
  manifest->files[kTokenizerName] = {std::ssize(model), ChecksumOf(model.data(), std::ssize(model))};
}

void SyncFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file >= 0 || errno != ENOENT) Sync(file, path);
}

}  // namespace longspan
