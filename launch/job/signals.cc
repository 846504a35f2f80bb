#include "launch/job/signals.h"

#include <csignal>
#include <iterator>

namespace longspan {
namespace {

constexpr int kSignals[] = {SIGUSR1, SIGUSR2, SIGINT, SIGTERM};  // the most urgent last
volatile std::sig_atomic_t came[std::size(kSignals)] = {};

void Note(int signal) {
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    if (kSignals[i] == signal) came[i] = 1;
  }
}

}  // namespace

void WatchStopSignals() {
  for (const int signal : kSignals) {
    struct sigaction before {
    }, action{};
    sigaction(signal, nullptr, &before);
    if (before.sa_handler == SIG_IGN) continue;
    action.sa_handler = Note;
    // Calls that a signal interrupts go on.
    action.sa_flags = SA_RESTART;
    if (signal == SIGINT || signal == SIGTERM) action.sa_flags |= static_cast<int>(SA_RESETHAND);
    sigaction(signal, &action, nullptr);
  }
}

int PendingStopSignal() {
  for (size_t i = std::size(kSignals); i-- > 0;) {
    if (came[i] != 0) return kSignals[i];
  }
  return 0;
}

}  // namespace longspan
