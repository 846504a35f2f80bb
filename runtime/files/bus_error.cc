#include "runtime/files/bus_error.h"

#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <string_view>

#include "runtime/error.h"

namespace longspan {
namespace {

struct sigaction before {};

struct Mapping {
  std::string path;  // "": of no file
  uint64_t byte = 0;
};

// The file that is mapped at `address` as MappedFile does (shared, to read), from lines "begin-end rwxp offset device
// inode   path".
Mapping MappingOf(uint64_t address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long long begin = 0, end = 0, offset = 0;
    char access[5] = "";
    if (std::sscanf(line.c_str(), "%llx-%llx %4s %llx", &begin, &end, access, &offset) != 4) continue;
    if (address < begin || address >= end) continue;
    const size_t path = line.find('/');
    if (path == std::string::npos || std::string_view(access) != "r--s") break;
    return {line.substr(path), address - begin + offset};
  }
  return {};
}

// The signal comes from a read of the mapped bytes and so from nowhere within the allocator: it may be used here.
void OnBusError(int, siginfo_t* info, void*) {
  const bool sent = info->si_code <= 0;  // by a process, not by an access
  const Mapping mapping = sent ? Mapping() : MappingOf(reinterpret_cast<uint64_t>(info->si_addr));
  if (mapping.path.empty()) {
    sigaction(SIGBUS, &before, nullptr);  // and the access is tried again
    if (sent) raise(SIGBUS);
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
