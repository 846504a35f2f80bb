// Where the threads of this process are, though many of them do not answer.
#include "launch/job/native_stack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "runtime/place.h"

namespace longspan {
namespace {

// Threads of libraries often take no signals. Each would once have kept the watch waiting for 20 ms.
TEST(NativeStack, ThreadsThatDoNotAnswerHideNoneThatDoes) {
  constexpr int kDeaf = 150;
  PrepareStacks();
  std::latch ready(kDeaf + 1), over(1);
  std::vector<std::jthread> threads;
  for (int i = 0; i < kDeaf; ++i) {
    threads.emplace_back([&] {
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_BLOCK, &all, nullptr);
      ready.count_down();
      over.wait();
    });
  }
  threads.emplace_back([&] {
    const auto stage = InStage("load");
    ready.count_down();
    over.wait();
  });
  ready.wait();
  std::string text;
  std::chrono::duration<double> took{1e9};  // the shortest
  const auto told = [&] { return text.starts_with("    main thread") && text.find(" at load\n") != std::string::npos; };
  std::thread([&] {
    for (int i = 0; i < 20 && !told(); ++i) {  // a busy machine may let a thread wait
      const auto begin = std::chrono::steady_clock::now();
      text = ThreadStacks();
      took = std::min<std::chrono::duration<double>>(took, std::chrono::steady_clock::now() - begin);
    }
  }).join();
  over.count_down();
  EXPECT_TRUE(told()) << text;
  EXPECT_LT(took.count(), 2);  // 150 times 20 ms are 3 s
}

}  // namespace
}  // namespace longspan
