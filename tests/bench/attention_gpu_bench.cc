// Times every attention operation on a GPU: median of several runs by events, TFLOP/s and GB/s by the operation's own
// counts.
//
//   attention_gpu_bench [S=65536] [H=64] [G=4] [K=128] [V=128] [runs=10]
//
// BF16, random values, one document, one segment, the default NsaConfig (MLP). Compression is counted for keys and
// values together; dense attention (full) is no part of the sums.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>

#include "kernels/attention/gpu/attention.h"
#include "tests/support/gpu_values.h"

namespace longspan::test {
namespace {

struct Sizes {
  int64_t tokens = 65536, heads = 64, groups = 4, key_width = 128, value_width = 128, runs = 10;
};

class Bench {
 public:
  explicit Bench(const Sizes& sizes) : s_(sizes), machine_(GpuMachine(DType::kBf16)), ops_(MakeGpuAttention()) {
    std::mt19937_64 random(1);
    std::normal_distribution<float> normal;
    normals_.resize(kPeriod);
    for (float& x : normals_) x = normal(random);
    for (cudaEvent_t* event : {&begin_, &end_}) CudaCheck(cudaEventCreate(event), "event");
  }
  ~Bench() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }

  void Run();

 private:
  // About as many values as repeat without anybody seeing it; a prime.
  static constexpr int64_t kPeriod = 4194301;

  OwnedTensor Random(const char* name, const Shape& shape, double scale) {
    OwnedTensor tensor(machine_, name, DType::kBf16, shape);
    const int64_t size = shape.count();
    std::vector<uint16_t> staged(std::min(size, kPeriod));
    for (size_t i = 0; i < staged.size(); ++i) staged[i] = Bf16Bits(scale * normals_[i]);
    for (int64_t at = 0; at < size; at += kPeriod) {
      const Shape part = {std::min(kPeriod, size - at)};
      machine_.device->Copy(
          *machine_.stream,
          Tensor(static_cast<uint16_t*>(tensor.view().data) + at, DType::kBf16, DeviceKind::kGpu, part),
          Tensor(staged.data(), DType::kBf16, DeviceKind::kCpu, part));
    }
    machine_.stream->Synchronize();
    return tensor;
  }
  OwnedTensor Zeros(const char* name, DType dtype, const Shape& shape) {
    OwnedTensor tensor(machine_, name, dtype, shape);
    machine_.device->FillBytes(*machine_.stream, tensor.view(), 0);
    return tensor;
  }

  PhiSet<OwnedTensor> MakePhi(int64_t width, bool gradient) {
    const int64_t rows = nsa_.block * width, hidden = 2 * width;
    const double from_block = 1 / std::sqrt(rows), from_hidden = 2 / std::sqrt(hidden);
    const PhiSet<double> scale = {0.5, from_block, 0.3, from_hidden, 0.3, from_block};
    PhiSet<OwnedTensor> phi;
    ForPhi({nsa_.phi, s_.groups, nsa_.block, width, hidden}, [&](size_t i, const Shape& shape) {
      phi[i] = gradient ? Zeros(kPhiNames[i], DType::kF32, shape) : Random(kPhiNames[i], shape, scale[i]);
    });
    return phi;
  }

  // Adds a line, and its median to a sum or to none; an operation that refuses is a line with its words.
  void Time(const char* name, double* total_ms, const std::function<void()>& work) {
    const cudaStream_t stream = CudaStream(*machine_.stream);
    try {
      work();
      machine_.stream->Synchronize();
      Trace::Get().Reset();
      work();
      machine_.stream->Synchronize();
      Cost cost;
      for (const auto& [span, total] : Trace::Get().totals()) {
        cost.flops += total.flops;
        cost.bytes += total.bytes;
      }
      std::vector<float> times(s_.runs);
      for (float& milliseconds : times) {
        CudaCheck(cudaEventRecord(begin_, stream), name);
        work();
        CudaCheck(cudaEventRecord(end_, stream), name);
        CudaCheck(cudaEventSynchronize(end_), name);
        CudaCheck(cudaEventElapsedTime(&milliseconds, begin_, end_), name);
      }
      std::sort(times.begin(), times.end());
      const double median = times[times.size() / 2];
      if (total_ms != nullptr) *total_ms += median;
      fmt::print("{:<22}{:>10.2f}{:>10.2f}{:>12.1f}{:>10.0f}\n", name, median, times[0], cost.flops / median * 1e-9,
                 cost.bytes / median * 1e-6);
    } catch (const Error& error) {
      fmt::print("{:<22}{}\n", name, error.what());
    }
    std::fflush(stdout);
  }

  Sizes s_;
  NsaConfig nsa_;
  Machine machine_;
  std::unique_ptr<AttentionOps> ops_;
  std::vector<float> normals_;
  cudaEvent_t begin_, end_;
  double forward_ms_ = 0, backward_ms_ = 0;
};

void Bench::Run() {
  const int64_t S = s_.tokens, H = s_.heads, G = s_.groups, K = s_.key_width, V = s_.value_width;
  const int64_t rows = S / nsa_.stride;
  Stream& stream = *machine_.stream;
  const std::vector<Segment> segments = {{0, S, 0}};
  const OwnedTensor table = Upload(machine_, "table", std::vector<int32_t>{0}, {1});
  const OwnedTensor q = Random("q", {S, H, K}, 1), gates = Random("gates", {S, H, 3}, 0.3);
  const OwnedTensor k = Random("k", {S, G, K}, 1), v = Random("v", {S, G, V}, 1);
  const OwnedTensor k_cmp = Zeros("k_cmp", DType::kBf16, {rows, G, K});
  const OwnedTensor v_cmp = Zeros("v_cmp", DType::kBf16, {rows, G, V});
  const OwnedTensor selected = Zeros("selected", DType::kI32, {S, G, nsa_.select});
  const PhiSet<OwnedTensor> phi_k = MakePhi(K, false), phi_v = MakePhi(V, false);
  const PhiSet<OwnedTensor> d_phi_k = MakePhi(K, true), d_phi_v = MakePhi(V, true);
  std::array<OwnedTensor, 3> o, lse, d_o;
  for (int i = 0; i < 3; ++i) {
    o[i] = Zeros("o", DType::kBf16, {S, H, V});
    lse[i] = Zeros("lse", DType::kF32, {S, H});
    d_o[i] = Zeros("d_o", DType::kBf16, {S, H, V});
  }
  const OwnedTensor out = Zeros("out", DType::kBf16, {S, H, V}), d_out = Random("d_out", {S, H, V}, 1);
  const OwnedTensor d_gates = Zeros("d_gates", DType::kF32, {S, H, 3}), d_q = Zeros("d_q", DType::kF32, {S, H, K});
  const OwnedTensor d_k = Zeros("d_k", DType::kF32, {S, G, K}), d_v = Zeros("d_v", DType::kF32, {S, G, V});
  const OwnedTensor d_k_cmp = Zeros("d_k_cmp", DType::kF32, {rows, G, K});
  const OwnedTensor d_v_cmp = Zeros("d_v_cmp", DType::kF32, {rows, G, V});

  const auto compress = [&](const OwnedTensor& x, const OwnedTensor& y, const PhiSet<OwnedTensor>& phi) {
    return CompressArgs{segments, x.view(), {table.view(), S}, nsa_.phi, nsa_.block, nsa_.stride, Views(phi), y.view()};
  };
  const CompressArgs compress_k = compress(k, k_cmp, phi_k), compress_v = compress(v, v_cmp, phi_v);
  const auto branch = [&](int i) {
    BranchArgs args;
    args.segments = segments;
    args.q = q.view();
    args.kv = i == 0 ? KeysValues{k_cmp.view(), v_cmp.view(), {table.view(), rows}}
                     : KeysValues{k.view(), v.view(), {table.view(), S}};
    args.scale = 1 / std::sqrt(static_cast<double>(K));
    args.o = o[i].view();
    args.lse = lse[i].view();
    return args;
  };
  const CompressedArgs compressed_args{branch(0), nsa_.block, nsa_.stride};
  const SelectedArgs selected_args{branch(1), nsa_.select_block, selected.view()};
  const WindowArgs window_args{branch(2), nsa_.window}, full_args{branch(2), S};
  SelectArgs select_args;
  select_args.segments = segments;
  select_args.q = q.view();
  select_args.k = k_cmp.view();
  select_args.pages = {table.view(), rows};
  select_args.lse = lse[0].view();
  select_args.scale = compressed_args.scale;
  select_args.nsa = nsa_;
  select_args.selected = selected.view();
  const CombineArgs combine_args{gates.view(), o[0].view(), o[1].view(), o[2].view(), out.view()};
  const auto gradient = [&](int i, const OwnedTensor& d_keys, const OwnedTensor& d_values) {
    return BranchGradient{d_o[i].view(), d_q.view(), d_keys.view(), d_values.view()};
  };

  fmt::print("S={} H={} G={} K={} V={} BF16, {} runs\n", S, H, G, K, V, s_.runs);
  fmt::print("{:<22}{:>10}{:>10}{:>12}{:>10}\n", "operation", "median ms", "best ms", "TFLOP/s", "GB/s");
  Time("compress", &forward_ms_, [&] {
    ops_->Compress(stream, compress_k);
    ops_->Compress(stream, compress_v);
  });
  Time("compressed", &forward_ms_, [&] { ops_->Compressed(stream, compressed_args); });
  Time("select", &forward_ms_, [&] { ops_->Select(stream, select_args); });
  Time("selected", &forward_ms_, [&] { ops_->Selected(stream, selected_args); });
  Time("window", &forward_ms_, [&] { ops_->Window(stream, window_args); });
  Time("combine", &forward_ms_, [&] { ops_->Combine(stream, combine_args); });
  Time("combine_backward", &backward_ms_, [&] {
    ops_->CombineBackward(stream, combine_args,
                          {d_out.view(), d_gates.view(), d_o[0].view(), d_o[1].view(), d_o[2].view()});
  });
  Time("window_backward", &backward_ms_, [&] { ops_->WindowBackward(stream, window_args, gradient(2, d_k, d_v)); });
  Time("selected_backward", &backward_ms_,
       [&] { ops_->SelectedBackward(stream, selected_args, gradient(1, d_k, d_v)); });
  Time("compressed_backward", &backward_ms_,
       [&] { ops_->CompressedBackward(stream, compressed_args, gradient(0, d_k_cmp, d_v_cmp)); });
  Time("compress_backward", &backward_ms_, [&] {
    ops_->CompressBackward(stream, compress_k, {d_k_cmp.view(), d_k.view(), Views(d_phi_k)});
    ops_->CompressBackward(stream, compress_v, {d_v_cmp.view(), d_v.view(), Views(d_phi_v)});
  });
  Time("full", nullptr, [&] { ops_->Window(stream, full_args); });
  Time("full_backward", nullptr, [&] { ops_->WindowBackward(stream, full_args, gradient(2, d_k, d_v)); });
  fmt::print("forward {:.2f} ms, backward {:.2f} ms\n", forward_ms_, backward_ms_);
}

int Main(int argc, char** argv) {
  if (GpuCount() == 0) {
    fmt::print("no GPU\n");
    return 77;
  }
  Sizes sizes;
  int64_t* const fields[] = {&sizes.tokens,    &sizes.heads,       &sizes.groups,
                             &sizes.key_width, &sizes.value_width, &sizes.runs};
  for (int i = 1; i < argc && i <= 6; ++i) *fields[i - 1] = std::atoll(argv[i]);
  Bench(sizes).Run();
  return 0;
}

}  // namespace
}  // namespace longspan::test

int main(int argc, char** argv) {
  try {
    return longspan::test::Main(argc, argv);
  } catch (const longspan::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
