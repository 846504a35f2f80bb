#include "runtime/files/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "runtime/error.h"

namespace longspan {
namespace {

// The file, locked and empty.
std::FILE* OpenLocked(const std::string& path, const std::string& partial) {
  struct stat older {};
  if (stat(path.c_str(), &older) == 0 && S_ISDIR(older.st_mode)) {
    Fail(ExitCode::kIo, "{}: cannot write: a folder has this name", path);
  }
  while (true) {
    const int file = open(partial.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) Fail(ExitCode::kIo, "{}: cannot create: {}", partial, std::strerror(errno));
    if (flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      close(file);
      Fail(ExitCode::kIo, "{}: another process is writing it; wait until that one ends, or write to another name",
           path);
    }
    // Whoever held the lock until now may have renamed or removed what was opened.
    struct stat opened {
    }, named{};
    if (fstat(file, &opened) == 0 && stat(partial.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
        opened.st_ino == named.st_ino) {
      if (S_ISREG(opened.st_mode) && ftruncate(file, 0) != 0) {
        Fail(ExitCode::kIo, "{}: cannot empty: {}", partial, std::strerror(errno));
      }
      return fdopen(file, "wb");
    }
    close(file);
  }
}

constexpr std::array kStops = {SIGINT, SIGTERM, SIGHUP};
std::atomic<int> arrived = 0;
static_assert(std::atomic<int>::is_always_lock_free);

// Ctrl-C comes before or after, not between. By handlers, since a signal that this thread blocks goes to another one.
class SignalsWait {
 public:
  SignalsWait() {
    struct sigaction wait {};
    wait.sa_handler = [](int signal) { arrived = signal; };
    wait.sa_flags = SA_RESTART;
    for (size_t i = 0; i < kStops.size(); ++i) sigaction(kStops[i], &wait, &before_[i]);
  }
  ~SignalsWait() {
    for (size_t i = 0; i < kStops.size(); ++i) sigaction(kStops[i], &before_[i], nullptr);
    if (const int signal = arrived.exchange(0)) raise(signal);
  }
  SignalsWait(const SignalsWait&) = delete;
  SignalsWait& operator=(const SignalsWait&) = delete;

 private:
  std::array<struct sigaction, kStops.size()> before_;
};

}  // namespace

OutputFile::OutputFile(const std::string& path)
    : path_(path), partial_(path + ".partial"), file_(OpenLocked(path_, partial_)) {}

OutputFile::~OutputFile() {
  if (file_ == nullptr) return;
  unlink(partial_.c_str());  // before the lock goes with the file
  std::fclose(file_);
}

void OutputFile::Write(const void* data, int64_t bytes) {
  if (bytes > 0 && std::fwrite(data, 1, bytes, file_) != static_cast<size_t>(bytes)) {
    Fail(ExitCode::kIo, "{}: cannot write {} bytes: {}", partial_, bytes, std::strerror(errno));
  }
}

void OutputFile::Commit() {
  Flush();
  Rename();
}

void OutputFile::Flush() {
  if (std::fflush(file_) != 0 || fsync(fileno(file_)) != 0) {
    Fail(ExitCode::kIo, "{}: cannot write: {}", partial_, std::strerror(errno));
  }
}

void OutputFile::Rename() {
  if (std::rename(partial_.c_str(), path_.c_str()) != 0) {
    Fail(ExitCode::kIo, "{}: cannot rename to {}: {}", partial_, path_, std::strerror(errno));
  }
  std::fclose(file_);
  file_ = nullptr;
}

void CommitAll(std::span<OutputFile* const> files) {
  for (OutputFile* file : files) file->Flush();
  const SignalsWait wait;
  for (size_t i = files.size(); i-- > 1;) unlink(files[i]->path().c_str());
  for (OutputFile* file : files) file->Rename();
}

}  // namespace longspan
