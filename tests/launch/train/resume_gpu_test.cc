// On GPUs, too, a run that was killed and resumed is the unbroken run, bit for bit; and one goes on from the other's
// checkpoints on CPU and GPU.
#include "tests/launch/train/interrupted_run.h"
#include "tests/support/gpu_sides.h"

namespace longspan {
namespace {

namespace fs = std::filesystem;

// Sizes that tensor cores take; two documents' worth of blocks to choose from.
constexpr const char* kModel =
    "model.hidden=128 model.key_width=32 model.value_width=32 model.ffn=192 model.nsa.block=16 model.nsa.stride=8 "
    "model.nsa.select_block=16 model.nsa.window=24 data.sequence_length=256 train.sequences_per_step=4 "
    "data.validation_fraction=0 optimizer.schedule=COSINE train.steps=40 ";

TEST_F(InterruptedRun, OnAGpu) {
  struct Variant {
    int ranks;
    std::string keys;
  };
  const std::string shared = "parallel.cp=2 parallel.share_gpu=true ";
  for (const Variant& variant : {Variant{1, "runtime.graphs=ON checkpoint.memory_interval=5"},
                                 {1, "runtime.dtype=F32 checkpoint.background=false"},
                                 {1, "model.layers=4 train.recompute=SELECTIVE train.offload=true"},
                                 {2, shared + "parallel.selected_exchange=FETCH"},
                                 {2, shared}}) {
    SCOPED_TRACE(variant.keys);
    fs::remove_all(folder_ / "runs");
    const std::string keys = kModel + std::string("runtime.device=GPU runtime.dtype=BF16 ") + variant.keys;
    Expect(0, variant.ranks, Arguments(keys + " name=whole checkpoint.interval=0"), {"done: 40 steps"});
    const std::string whole = Parameters();
    Kill(variant.ranks, Arguments(keys + " checkpoint.interval=17"), /*all=*/true,
         [&] { return fs::exists(folder_ / "runs/run/checkpoints/step-00000017"); });
    Expect(0, variant.ranks, Arguments(keys + " --resume checkpoint.interval=0"), {"after step "});
    if (said_.find("done already") != std::string::npos) continue;  // it was too fast
    EXPECT_EQ(Parameters(), whole);
    EXPECT_EQ(Steps("run"), Steps("whole"));
  }
}

TEST_F(InterruptedRun, FromCpuToGpuAndBack) {
  const std::string keys = kModel + std::string("optimizer.schedule=CONSTANT runtime.dtype=AUTO ");
  Expect(0, 1, Arguments(keys + "train.steps=15 name=whole"), {"done: 15 steps"});
  Expect(0, 1, Arguments(keys + "train.steps=5"), {"done: 5 steps"});
  Expect(0, 1, Arguments(keys + "train.steps=10 runtime.device=GPU runtime.dtype=F32 --resume"),
         {"runtime.device: CPU in the checkpoint, GPU now", "after step 5"});
  Expect(0, 1, Arguments(keys + "train.steps=15 --resume"), {"after step 10", "done: 5 steps"});
  Expect(0, 1, Arguments(keys + "train.steps=16 runtime.device=GPU runtime.dtype=BF16 --resume"), {"after step 15"});
  std::vector<double> losses, whole;
  for (const auto& line : Metrics("run")) {
    if (line["kind"] == "step") losses.push_back(line["loss"]);
  }
  for (const auto& line : Metrics("whole")) {
    if (line["kind"] == "step") whole.push_back(line["loss"]);
  }
  ASSERT_EQ(losses.size(), 16U);
  EXPECT_NEAR(losses[5], whole[5], 1e-5);
  for (size_t i = 0; i < 15; ++i) EXPECT_NEAR(losses[i], whole[i], 1e-3) << "step " << i + 1;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::test::RunGpuTests(argc, argv); }
