// Signals are noted, the most urgent is told, and SIGTERM ends the process when it comes twice.
#include "launch/job/signals.h"

#include <gtest/gtest.h>

#include <csignal>

namespace longspan {
namespace {

TEST(Signals, AreNoted) {
  std::signal(SIGINT, SIG_IGN);
  WatchStopSignals();
  EXPECT_EQ(PendingStopSignal(), 0);
  std::raise(SIGINT);  // ignored before: still
  EXPECT_EQ(PendingStopSignal(), 0);
  for (const int signal : {SIGUSR1, SIGUSR2, SIGTERM}) {
    std::raise(signal);
    EXPECT_EQ(PendingStopSignal(), signal);
  }
  std::raise(SIGUSR1);
  std::raise(SIGUSR1);
  EXPECT_EQ(PendingStopSignal(), SIGTERM);
  EXPECT_EXIT(std::raise(SIGTERM), testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace longspan
