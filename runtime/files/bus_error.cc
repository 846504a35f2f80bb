#include "runtime/files/bus_error.h"

#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

#include "runtime/error.h"

namespace longspan {
namespace {

struct sigaction before {};

struct Mapping {
  std::string path;  // "": of no file
  uint64_t byte = 0;
};

// The file that is mapped at `address`, from lines "begin-end rwxp offset device inode   path".
Mapping MappingOf(uint64_t address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long long begin = 0, end = 0, offset = 0;
    if (std::sscanf(line.c_str(), "%llx-%llx %*s %llx", &begin, &end, &offset) != 3) continue;
    const size_t path = line.find('/');
    if (address < begin || address >= end) continue;
    return {path == std::string::npos ? "" : line.substr(path), address - begin + offset};
  }
  return {};
}

// The signal comes from a read of the mapped bytes and so from nowhere within the allocator: it may be used here.
void OnBusError(int, siginfo_t* info, void*) {
  const Mapping mapping = MappingOf(reinterpret_cast<uint64_t>(info->si_addr));
  if (mapping.path.empty()) {
    sigaction(SIGBUS, &before, nullptr);  // and the access is tried again
    return;
  }
  const std::string text = fmt::format(
      "error: {}{}: expected the bytes that it had when it was opened, found none at {}: the file was cut, "
      "or its disk fails\n",
      ProcessPrefix(), mapping.path, mapping.byte);
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
  _exit(static_cast<int>(ExitCode::kIo));
}

}  // namespace

void CatchBusErrors() {
  [[maybe_unused]] static const int installed = [] {
    struct sigaction action {};
    action.sa_sigaction = OnBusError;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGBUS, &action, &before);
  }();
}

}  // namespace longspan
