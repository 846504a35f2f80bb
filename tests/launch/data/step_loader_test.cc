// StepLoader: the batches of BatchLoader, loaded a step ahead on another thread.
#include "launch/data/step_loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "launch/data/random_source.h"
#include "runtime/error.h"

namespace longspan {
namespace {

constexpr int64_t kTokens = 64, kPerStep = 6, kSteps = 9;
const NsaConfig kNsa = {.block = 8, .stride = 4, .select_block = 8};

// Counts what is read, and may fail.
class CountingSource : public SequenceSource {
 public:
  int64_t size() const override { return random_.size(); }
  int64_t length() const override { return random_.length(); }
  int64_t labels() const override { return random_.labels(); }
  std::string Summary() const override { return random_.Summary(); }
  void Fill(int64_t sequence, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> doc_start) const override {
    if (++filled == fail_at) Fail(ExitCode::kData, "sequence {} is bad", sequence);
    random_.Fill(sequence, tokens, targets, doc_start);
  }
  mutable std::atomic<int64_t> filled = 0;
  int64_t fail_at = -1;

 private:
  RandomSource random_{kTokens, 17, 8, true};
};

struct Loaded {
  CountingSource source;
  Layout layout{LayoutKind::kHeadTail, kTokens, 1, 8};
  BatchLoader loader{source, layout, 0, kNsa, 3};
};

TEST(StepLoader, TheBatchesOfItsStepsWhateverCameBefore) {
  Loaded ahead, plain;
  StepLoader steps(ahead.loader, kSteps, kPerStep, {1, 2});
  for (const int64_t step : {1, 1, 2, 3, 3, 7, 2, 9}) {
    const std::vector<Batch>& found = steps.Step(step);
    ASSERT_EQ(found.size(), static_cast<size_t>(kPerStep / 2));
    for (int64_t micro = 0; micro < kPerStep / 2; ++micro) {
      Batch expected;
      plain.loader.Load(BatchLoader::Place(step - 1, kPerStep, micro, 2, 1), expected);
      EXPECT_EQ(found[micro].tokens, expected.tokens) << "step " << step;
      EXPECT_EQ(found[micro].targets, expected.targets);
      EXPECT_EQ(found[micro].doc_start, expected.doc_start);
      EXPECT_EQ(found[micro].labels, expected.labels);
    }
  }
}

// The next step's sequences are read though nobody has asked for them yet; after the last step none are.
TEST(StepLoader, LoadsAStepAhead) {
  Loaded loaded;
  StepLoader steps(loaded.loader, kSteps, kPerStep, {});
  steps.Step(kSteps - 1);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (loaded.source.filled < 2 * kPerStep && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(loaded.source.filled, 2 * kPerStep);
  steps.Step(kSteps);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(loaded.source.filled, 2 * kPerStep);
}

TEST(StepLoader, GoesOnAtAPlace) {
  Loaded loaded;
  StepLoader steps(loaded.loader, kSteps, kPerStep, {});
  const std::vector<int32_t> seventh = steps.Step(2)[1].tokens;  // place 7
  steps.Continue(5, 4);
  EXPECT_EQ(steps.Step(5)[3].tokens, seventh);
}

TEST(StepLoader, ABadSequenceIsTheErrorOfItsStep) {
  Loaded loaded;
  loaded.source.fail_at = kPerStep + 2;
  StepLoader steps(loaded.loader, kSteps, kPerStep, {});
  steps.Step(1);
  EXPECT_THROW(steps.Step(2), Error);
}

}  // namespace
}  // namespace longspan
