// On a GPU a model says token by token what it says on a CPU, in F32: with training's kernels, over caches.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/host_copy.h"
#include "model/decode/decoder.h"
#include "tests/support/gpu_sides.h"

namespace longspan {
namespace {

ModelConfig Config(AttentionKind kind) {
  ModelConfig model;
  model.layers = 2;
  model.hidden = 64;
  model.heads = 8;
  model.kv_heads = 2;
  model.key_width = model.value_width = 32;
  model.ffn = 96;
  model.vocab = 61;
  model.attention = {kind};
  model.nsa = {.block = 16, .stride = 8, .select_block = 32, .select = 4, .window = 48};
  return model;
}

TEST(DecoderOnGpu, LogitsAreTheCpus) {
  constexpr int64_t kLength = 700;
  const auto cpu = MakeCpuDevice(), gpu = MakeGpuDevice(0);
  for (const AttentionKind kind : {AttentionKind::kNsa, AttentionKind::kFull, AttentionKind::kWindow}) {
    const Decoder::Args args = {.model = Config(kind), .dtype = DType::kF32, .sequences = 2, .length = kLength};
    Decoder reference(*cpu, args), decoder(*gpu, args);
    reference.Start();
    decoder.Start();
    uint32_t noise = 1;
    for (const auto& param : reference.params().params()) {
      const double scale = param->init.stddev > 0 ? param->init.stddev : 0.02;
      auto* const values = param->weight.As<float>();
      for (int64_t i = 0; i < param->size(); ++i) {
        noise = noise * 1664525 + 1013904223;
        values[i] = static_cast<float>(param->init.mean + scale * (noise / 2147483648.0 - 1));
      }
      HostCopy(*gpu, decoder.stream(), param->weight, decoder.params().Find(param->name).weight);
    }
    std::vector<int32_t> tokens(kLength);
    for (int64_t t = 0; t < kLength; ++t) tokens[t] = static_cast<int32_t>((t * t + 7 * t) % args.model.vocab);
    // A prompt of several steps beside a short one, then token by token across the ends of blocks.
    std::vector<int64_t> lengths = {601, 3};
    std::vector<Decoder::Entry> entries = {{0, std::span(tokens).first(601)}, {1, std::span(tokens).first(3)}};
    for (int step = 0; step < 80; ++step) {
      const auto expected = reference.Append(entries), found = decoder.Append(entries);
      for (size_t i = 0; i < entries.size(); ++i) {
        double error = 0, size = 0;
        for (size_t c = 0; c < expected[i].size(); ++c) {
          error += std::pow(static_cast<double>(expected[i][c]) - static_cast<double>(found[i][c]), 2);
          size += std::pow(static_cast<double>(expected[i][c]), 2);
        }
        ASSERT_LE(std::sqrt(error), 1e-4 * std::sqrt(size)) << "step " << step << ", sequence " << i;
        entries[i].tokens = std::span(tokens).subspan(lengths[i]++, 1);
      }
    }
  }
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::test::RunGpuTests(argc, argv); }
