// The library on a GPU: a sequence's outputs and gradients are the CPU's, decoding gives what the GPU's own forward
// gives.
#include <algorithm>

#include "tests/nsa/gpu_library.h"
#include "tests/support/compare.h"

namespace longspan::test {
namespace {

class LibraryOnGpu : public testing::TestWithParam<DType> {
 protected:
  // All values as the type rounds them, so that both devices have the same.
  static NsaCase Case(DType dtype, int64_t select) {
    NsaCase c;
    c.tokens = 1100;
    c.heads = 32;
    c.groups = 2;
    c.key_width = c.value_width = 64;
    c.nsa.phi_hidden = 64;
    c.nsa.select = select;
    c.rope_theta = 100;
    Randomize(c, 41);
    for (auto& [name, values] : c.in.Named()) *values = Rounded(*values, dtype);
    c.d_out = Rounded(c.d_out, dtype);
    return c;
  }
};

TEST_P(LibraryOnGpu, SequencesAreTheCpus) {
  const DType dtype = GetParam();
  const double tolerance = dtype == DType::kBf16 ? 0.01 : 1e-5;
  const NsaCase c = Case(dtype, 20);  // all blocks: near ties are for other tests
  Library cpu(c, NSA_FLOAT32);
  const Values<float> values(c);
  const auto expected = RunForward<float>(cpu, c, values.call);
  std::vector<float> d_q(c.in.q.size());
  std::array<std::vector<float>, 3> d_k, d_v;
  NSAGradients wanted = {d_q.data(), {}, {}, nullptr};
  for (int branch = 0; branch < 3; ++branch) {
    d_k[branch].resize(c.in.k[branch].size());
    d_v[branch].resize(c.in.v[branch].size());
    wanted.d_k[branch] = d_k[branch].data();
    wanted.d_v[branch] = d_v[branch].data();
  }
  std::vector<char> work(nsa_backward_workspace_size(cpu.get(), c.tokens));
  std::vector<float> d_weight(c.in.phi_k.weight1.size(), 0);
  ASSERT_NSA(nsa_bind_gradient(cpu.get(), "phi_k.weight1", d_weight.data()));
  const std::vector<float> d_out = As<float>(c.d_out);
  ASSERT_NSA(nsa_backward(cpu.get(), &values.call, expected.saved.data(), d_out.data(), &wanted, work.data(), nullptr));

  Library gpu(c, OnGpu(c, dtype));
  const DeviceValues device(c, dtype);
  const Machine f32 = GpuMachine(DType::kF32);
  const OwnedTensor saved = device.Bytes("saved", nsa_saved_size(gpu.get(), c.tokens)),
                    space = device.Bytes("work", nsa_backward_workspace_size(gpu.get(), c.tokens)),
                    d_out_device = UploadValues(device.machine, "d_out", c.d_out, device.out.view().shape),
                    d_q_device(f32, "d_q", DType::kF32, device.q.view().shape),
                    d_weight_device = UploadValues(f32, "d_weight", Array(d_weight.size(), 0),
                                                   {c.nsa.block * c.key_width, c.nsa.phi_hidden});
  std::array<OwnedTensor, 3> d_k_device, d_v_device;
  NSAGradients wanted_device = {d_q_device.view().data, {}, {}, nullptr};
  for (int branch = 0; branch < 3; ++branch) {
    d_k_device[branch] = OwnedTensor(f32, "d_k", DType::kF32, device.k[branch].view().shape);
    d_v_device[branch] = OwnedTensor(f32, "d_v", DType::kF32, device.v[branch].view().shape);
    wanted_device.d_k[branch] = d_k_device[branch].view().data;
    wanted_device.d_v[branch] = d_v_device[branch].view().data;
  }
  device.machine.stream->Synchronize();
  ASSERT_NSA(nsa_bind_gradient(gpu.get(), "phi_k.weight1", d_weight_device.view().data));
  const NSAOutputs outputs = {device.out.view().data, saved.view().data, nullptr};
  ASSERT_NSA(nsa_forward(gpu.get(), &device.call, &outputs, nullptr));
  ASSERT_NSA(nsa_backward(gpu.get(), &device.call, saved.view().data, d_out_device.view().data, &wanted_device,
                          space.view().data, nullptr));
  device.Wait();
  EXPECT_TRUE(RmsClose("out", DownloadValues(device.machine, device.out.view()), Doubles(expected.out), tolerance));
  EXPECT_TRUE(RmsClose("d_q", DownloadValues(f32, d_q_device.view()), Doubles(d_q), tolerance));
  EXPECT_TRUE(RmsClose("d_weight1", DownloadValues(f32, d_weight_device.view()), Doubles(d_weight), tolerance));
  for (int branch = 0; branch < 3; ++branch) {
    EXPECT_TRUE(RmsClose("d_k", DownloadValues(f32, d_k_device[branch].view()), Doubles(d_k[branch]), tolerance));
    EXPECT_TRUE(RmsClose("d_v", DownloadValues(f32, d_v_device[branch].view()), Doubles(d_v[branch]), tolerance));
  }
}

TEST_P(LibraryOnGpu, DecodingIsItsForward) {
  const DType dtype = GetParam();
  const NsaCase c = Case(dtype, 6);
  Library gpu(c, OnGpu(c, dtype));
  const DeviceValues whole(c, dtype), stepwise(c, dtype);
  const OwnedTensor saved = whole.Bytes("saved", nsa_saved_size(gpu.get(), c.tokens));
  NSAOutputs outputs = {whole.out.view().data, saved.view().data, static_cast<int32_t*>(whole.selected.view().data)};
  whole.machine.stream->Synchronize();
  ASSERT_NSA(nsa_forward(gpu.get(), &whole.call, &outputs, nullptr));

  NSACache cache;
  ASSERT_NSA(nsa_cache_init(gpu.get(), &cache, 20));
  std::vector<int32_t> pages(c.blocks());
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(19 - i);
  const OwnedTensor table = Upload(stepwise.machine, "pages", pages, {c.blocks()});
  const auto* const table_data = static_cast<const int32_t*>(table.view().data);
  NSAInputs first = stepwise.call;
  first.tokens = 500;
  outputs.out = stepwise.out.view().data;
  outputs.selected = static_cast<int32_t*>(stepwise.selected.view().data);
  ASSERT_NSA(nsa_prefill(gpu.get(), &cache, 3, &first, table_data, &outputs, nullptr));
  const int32_t sequence = 3;
  int32_t count = 0;
  for (int64_t t = 500; t < c.tokens; t += count) {
    count = static_cast<int32_t>(std::min<int64_t>(c.tokens - t, t < 700 ? 1 : 1 + t % 16));
    NSADecodeStep step = {};
    step.num_sequences = 1;
    step.sequences = &sequence;
    step.lengths = &t;
    step.new_tokens = &count;
    step.page_table = table_data;
    step.page_table_width = static_cast<int32_t>(c.blocks());
    step.q = stepwise.q.view().Rows(t, count).data;
    step.gates = stepwise.gates.view().Rows(t, count).data;
    for (int branch = 0; branch < 3; ++branch) {
      step.k[branch] = stepwise.k[branch].view().Rows(t, count).data;
      step.v[branch] = stepwise.v[branch].view().Rows(t, count).data;
    }
    step.out = stepwise.out.view().Rows(t, count).data;
    step.selected = static_cast<int32_t*>(stepwise.selected.view().Rows(t, count).data);
    ASSERT_NSA(nsa_decode(gpu.get(), &cache, &step, nullptr));
  }
  whole.Wait();
  EXPECT_TRUE(BitEqual("selected", DownloadInts(stepwise.machine, stepwise.selected.view()),
                       DownloadInts(whole.machine, whole.selected.view())));
  EXPECT_TRUE(RmsClose("out", DownloadValues(stepwise.machine, stepwise.out.view()),
                       DownloadValues(whole.machine, whole.out.view()), dtype == DType::kBf16 ? 0.005 : 1e-5));
  nsa_cache_free(&cache);
}

INSTANTIATE_TEST_SUITE_P(Types, LibraryOnGpu, testing::Values(DType::kF32, DType::kBf16));

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return longspan::GpuCount() == 0 ? 77 : RUN_ALL_TESTS();
}
