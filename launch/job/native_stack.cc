#include "launch/job/native_stack.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <execinfo.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <thread>
#include <vector>

#include "runtime/place.h"

namespace longspan {
namespace {

constexpr int kMostFrames = 64, kShownFrames = 14;
constexpr int kMostThreads = 256;                           // that are asked
constexpr auto kPatience = std::chrono::milliseconds(300);  // with all of them

int AskSignal() { return SIGRTMIN + 6; }

// What a thread that was asked answers.
struct Answer {
  int thread = 0;
  std::atomic<bool> given = false;
  std::array<void*, kMostFrames> frames{};
  int count = 0;
  Place place;
};
// Of all threads that are asked at once.
struct Answers {
  std::array<Answer, kMostThreads> all;
  int asked = 0;
};
std::atomic<Answers*> answers;

void Tell(int) {
  const int error = errno;
  Answers* const asked = answers.load();
  if (!asked) return;  // by somebody else
  const int thread = static_cast<int>(syscall(SYS_gettid));
  const auto end = asked->all.begin() + asked->asked;
  const auto answer = std::find_if(asked->all.begin(), end, [&](const Answer& one) { return one.thread == thread; });
  if (answer != end && !answer->given) {
    answer->place = CurrentPlace();
    answer->count = backtrace(answer->frames.data(), kMostFrames);
    answer->given = true;
  }
  errno = error;
}

// The functions of this program, by address: its own table of symbols has those that it does not export.
class Symbols {
 public:
  Symbols() {
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* base) { return *static_cast<uint64_t*>(base) = info->dlpi_addr, 1; },
        &base_);
    std::ifstream file("/proc/self/exe", std::ios::binary);
    Elf64_Ehdr head{};
    if (!Read(file, 0, &head, 1) || std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0) return;
    std::vector<Elf64_Shdr> sections(head.e_shnum);
    if (!Read(file, head.e_shoff, sections.data(), sections.size())) return;
    for (const Elf64_Shdr& section : sections) {
      if (section.sh_type != SHT_SYMTAB || section.sh_link >= sections.size()) continue;
      std::vector<Elf64_Sym> symbols(section.sh_size / sizeof(Elf64_Sym));
      names_.resize(sections[section.sh_link].sh_size);
      if (!Read(file, section.sh_offset, symbols.data(), symbols.size()) ||
          !Read(file, sections[section.sh_link].sh_offset, names_.data(), names_.size())) {
        return;
      }
      std::copy_if(symbols.begin(), symbols.end(), std::back_inserter(functions_), [&](const Elf64_Sym& symbol) {
        return ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_name < names_.size();
      });
    }
    std::sort(functions_.begin(), functions_.end(),
              [](const Elf64_Sym& a, const Elf64_Sym& b) { return a.st_value < b.st_value; });
  }

  // "" where it is not of the program.
  std::string Name(uint64_t address) const {
    const uint64_t place = address - base_;
    auto after = std::upper_bound(functions_.begin(), functions_.end(), place,
                                  [](uint64_t at, const Elf64_Sym& symbol) { return at < symbol.st_value; });
    if (after == functions_.begin() || place >= (--after)->st_value + after->st_size) return "";
    return names_.data() + after->st_name;
  }

 private:
  template <typename T>
  static bool Read(std::ifstream& file, uint64_t offset, T* to, size_t count) {
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char*>(to), static_cast<std::streamsize>(count * sizeof(T)));
    return file.good();
  }

  uint64_t base_ = 0;
  std::vector<Elf64_Sym> functions_;
  std::vector<char> names_;
};

std::string Readable(const std::string& symbol) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> demangled(abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status),
                                                         std::free);
  std::string name = demangled ? demangled.get() : symbol;
  for (const std::string noise : {"longspan::", "(anonymous namespace)::"}) {
    for (size_t at = 0; (at = name.find(noise)) != std::string::npos;) name.erase(at, noise.size());
  }
  // Without the arguments.
  size_t end = name.find('(');
  while (end != std::string::npos && name.substr(0, end).ends_with("operator")) end = name.find('(', end + 2);
  return name.substr(0, std::min<size_t>(end, 120));
}

std::string FrameName(const Symbols& symbols, void* frame) {
  // What it returns to may be the next function's first byte.
  const uint64_t address = reinterpret_cast<uint64_t>(frame) - 1;
  if (const std::string own = symbols.Name(address); !own.empty()) return Readable(own);
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(address), &info) == 0 || !info.dli_fname) return "?";
  const std::string library = std::filesystem::path(info.dli_fname).filename().string();
  return fmt::format("{} ({})", info.dli_sname ? Readable(info.dli_sname) : "?", library);
}

// The first thread and others, until all have answered or patience ends. Of others the calling thread is not asked.
const Answers& AskAll() {
  static auto& kept = *new std::deque<Answers>;  // they stay: a thread may answer late
  Answers* const fresh = &kept.emplace_back();
  const int first = getpid(), own = static_cast<int>(syscall(SYS_gettid));
  const auto add = [fresh](int thread) { fresh->all[fresh->asked++].thread = thread; };
  add(first);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task", error)) {
    const int thread = std::atoi(entry.path().filename().c_str());
    if (thread != first && thread != own && fresh->asked < kMostThreads) add(thread);
  }
  answers = fresh;
  const auto begin = fresh->all.begin(), end = begin + fresh->asked;
  std::for_each(begin, end, [](const Answer& answer) { syscall(SYS_tgkill, getpid(), answer.thread, AskSignal()); });
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline &&
         !std::all_of(begin, end, [](const Answer& answer) { return answer.given.load(); })) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return *fresh;
}

bool AtPlaceOfItsOwn(const Answer& answer) {
  return answer.place.layer >= 0 || std::strcmp(answer.place.stage, Place().stage) != 0;
}

std::string AnswerText(const Symbols& symbols, const Answer& answer) {
  const Place& place = answer.place;
  std::string text;
  if (AtPlaceOfItsOwn(answer)) {
    const char* const pass = place.pass == Pass::kForward    ? " forward"
                             : place.pass == Pass::kBackward ? " backward"
                                                             : "";
    text = fmt::format(" at {}{}{}", place.stage, place.layer >= 0 ? fmt::format(", layer {}", place.layer) : "", pass);
  }
  text += "\n";
  // The first two are the handler and the system's call of it. Of libraries' own functions only where the thread is.
  constexpr int kFirst = 2;
  for (int i = kFirst, shown = 0; i < answer.count && shown < kShownFrames; ++i) {
    const std::string name = FrameName(symbols, answer.frames[i]);
    const bool noise = name.starts_with("std::") || name.starts_with("? (") || name.empty();
    if (noise && i > kFirst) continue;
    text += fmt::format("      {}\n", name);
    ++shown;
    if (name == "main") break;
  }
  return text;
}

}  // namespace

void PrepareStacks() {
  void* frame = nullptr;
  backtrace(&frame, 1);  // loads what it needs, which a handler may not
  struct sigaction action {};
  action.sa_handler = Tell;
  action.sa_flags = SA_RESTART;
  sigaction(AskSignal(), &action, nullptr);
}

std::string ThreadStacks() {
  const Answers& known = AskAll();
  const Symbols symbols;
  std::string text;
  for (int i = 0; i < known.asked; ++i) {
    const Answer& answer = known.all[i];
    if (i == 0) {
      text += answer.given ? "    main thread" + AnswerText(symbols, answer) : "    the main thread does not answer\n";
    } else if (answer.given && AtPlaceOfItsOwn(answer)) {
      text += fmt::format("    thread {}{}", answer.thread, AnswerText(symbols, answer));
    }
  }
  return text;
}

}  // namespace longspan
