#include "launch/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include "launch/checkpoint/folder.h"
#include "parallel/comm/texts.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCheckpoints = "/checkpoints";

// "pid 123 on node7", as the holder wrote it.
std::string ReadHolder(int lock) {
  std::array<char, 256> text{};
  const ssize_t size = pread(lock, text.data(), text.size(), 0);
  return size > 0 ? std::string(text.data(), size) : "an unknown process";
}

void WriteHolder(int lock) {
  std::array<char, 200> host{};
  gethostname(host.data(), host.size() - 1);
  const std::string text = fmt::format("pid {} on {}", getpid(), host.data());
  // Only for the eyes of those who find it locked: nothing is lost where it cannot be written.
  [[maybe_unused]] const bool written = ftruncate(lock, 0) == 0 && pwrite(lock, text.data(), text.size(), 0) > 0;
}

constexpr const char* kId = "/id";

void WriteText(const std::string& path, const std::string& text) {
  OutputFile file(path);
  file.Write(text.data(), static_cast<int64_t>(text.size()));
  file.Commit();
}

bool HoldsRun(const std::string& folder) {
  std::error_code error;
  if (!CheckpointFolder(folder + kCheckpoints).List().empty()) return true;
  const fs::path metrics = folder + "/metrics.jsonl";
  return fs::is_regular_file(metrics, error) && fs::file_size(metrics, error) > 0 && !error;
}

}  // namespace

RunFolder::Lock::~Lock() {
  if (file_ < 0) return;
  [[maybe_unused]] const int emptied = ftruncate(file_, 0);
  close(file_);
}

std::string RunFolder::Lock::Take(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) Fail(ExitCode::kIo, "{}: cannot be written: {}", path, std::strerror(errno));
  if (flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    const std::string holder = ReadHolder(file);
    close(file);
    return holder;
  }
  WriteHolder(file);
  file_ = file;
  return "";
}

RunFolder::RunFolder(const RunConfig& config, OlderRun older, bool writes) : path_(PathOf(config)), older_(older) {
  if (!writes) return;
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) Fail(ExitCode::kIo, "{}: the run's folder cannot be made: {}", path_, error.message());
  if (const std::string holder = lock_.Take(path_ + "/lock"); !holder.empty()) {
    Fail(ExitCode::kConfig,
         "name = \"{}\": {} is in use by a run that has not ended, {}; set name to another, or end "
         "that one and give --resume",
         config.name, path_, holder);
  }
  if (const std::string problem = Problem(config, older); !problem.empty()) Fail(ExitCode::kConfig, "{}", problem);
  replaces_ = older == OlderRun::kReplace && HoldsRun(path_);
  id_ = ReadId(path_);
  if (!id_.empty()) return;
  std::random_device random;
  id_ = fmt::format("{:08x}{:08x}", random(), random());
  WriteText(path_ + kId, id_ + "\n");
}

std::string RunFolder::PathOf(const RunConfig& config) { return (fs::path(config.output) / config.name).string(); }

// Folders of that name are removed: nothing else passes for one.
std::string RunFolder::ReadId(const std::string& path) {
  std::ifstream file(path + kId);
  std::string id;
  std::getline(file, id);
  const bool good = id.size() == 16 && id.find_first_not_of("0123456789abcdef") == std::string::npos;
  return good ? id : "";
}

void RunFolder::RequireShared(Communicator& world) const {
  const std::string wanted = GatherTexts(world, id_)[0];
  // A network's file system may take its time to show what is new.
  bool seen = false;
  for (int i = 0; i < 20 && !(seen = ReadId(path_) == wanted); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  std::string blind;
  const std::vector<std::string> told = GatherTexts(world, seen ? "" : host.data());
  for (size_t rank = 0; rank < told.size(); ++rank) {
    if (!told[rank].empty()) blind += fmt::format("{}rank {} on {}", blind.empty() ? "" : ", ", rank, told[rank]);
  }
  if (blind.empty()) return;
  throw Error(ExitCode::kConfig,
              fmt::format("{}output: {} of rank 0 is not there for {}: it must lie where all nodes see it; give output "
                          "by its full path in a folder that they share",
                          ProcessPrefix(), path_, blind));
}

std::string RunFolder::Problem(const RunConfig& config, OlderRun older) {
  if (older != OlderRun::kKeep || !HoldsRun(PathOf(config))) return "";
  return fmt::format(
      "name = \"{}\": {} holds an older run; set name to another, or give --resume to go on with that run, or "
      "--overwrite to replace it",
      config.name, PathOf(config));
}

void RunFolder::Begin(const std::string& config_text) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_ + "/profile", error)) {
    const std::string name = entry.path().filename().string();
    const bool report = name == "report.txt" || name == "report.json" || name == "report.html";
    // A run that resumes goes on in its ranks' files.
    const bool recorded = older_ != OlderRun::kResume && name.starts_with("rank") && name.ends_with(".pb");
    if (report || recorded) fs::remove(entry.path(), error);
  }
  if (older_ == OlderRun::kReplace) {
    fs::remove_all(path_ + kCheckpoints, error);
    fs::remove(path_ + "/eval.json", error);
  }
  WriteText(path_ + "/config.textproto", config_text);
}

}  // namespace longspan
