#include "launch/commands/bench_nsa.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <random>

#include "kernels/host_copy.h"
#include "kernels/ops.h"
#include "launch/commands/attention_metadata.h"
#include "launch/commands/bench_lists.h"
#include "launch/commands/bench_sizes.h"
#include "runtime/memory.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

using Work = std::function<void()>;

class NsaBench {
 public:
  NsaBench(Device& device, const NsaBenchCase& bench)
      : bench_(bench),
        nsa_(bench.nsa),
        device_(device),
        ops_(MakeOps(device.kind())),
        stream_(device.MakeStream("bench")),
        timer_(device.MakeTimer()),
        segments_({{0, bench.tokens, 0}}) {
    Reserve();
    arena_.Commit(device);
    Fill();
  }

  BenchCase Run() {
    found_ = DescribeNsaBench(bench_);
    found_.tensor_bytes = arena_.bytes();
    found_.kernels = device_.kind() == DeviceKind::kCpu
                         ? "cpu"
                         : ops_.attention->Kernels(*stream_, {bench_.dtype, bench_.sizes.heads, bench_.sizes.kv_heads,
                                                              bench_.sizes.key_width, bench_.sizes.value_width});
    MeasureDevice();
    Forward();
    found_.union_of_8 = UnionOfEight(HostValues<int32_t>(device_, *stream_, selected_), selected_.shape);
    if (bench_.backward) Backward();
    if (bench_.full) TimeFull();
    return found_;
  }

 private:
  static constexpr int kCmp = 0, kSlc = 1, kWin = 2;

  void Tensors(std::initializer_list<Tensor*> slots, const char* name, DType dtype, const Shape& shape) {
    for (Tensor* slot : slots) arena_.Reserve(slot, MemoryUse::kActivations, name, dtype, shape);
  }

  void Reserve() {
    const auto [S, H, G, K, V] = std::array{bench_.tokens, bench_.sizes.heads, bench_.sizes.kv_heads,
                                            bench_.sizes.key_width, bench_.sizes.value_width};
    const int64_t rows = S / nsa_.stride;
    const DType type = bench_.dtype, fp32 = DType::kF32;
    Tensors({&q_}, "q", type, {S, H, K});
    Tensors({&k_}, "k", type, {S, G, K});
    Tensors({&v_}, "v", type, {S, G, V});
    Tensors({&gates_}, "gates", type, {S, H, 3});
    Tensors({&k_cmp_}, "k_cmp", type, {rows, G, K});
    Tensors({&v_cmp_}, "v_cmp", type, {rows, G, V});
    Tensors({&o_[0], &o_[1], &o_[2], &out_}, "outputs", type, {S, H, V});
    Tensors({&lse_[0], &lse_[1], &lse_[2]}, "lse", fp32, {S, H});
    Tensors({&chosen_}, "chosen", DType::kI32, {S, G, nsa_.select});
    if (!bench_.selected.empty()) Tensors({&given_}, "given", DType::kI32, {S, G, nsa_.select});
    Tensors({&table_}, "table", DType::kI32, {1});
    ReservePhi(K, &phi_k_, &d_phi_k_);
    ReservePhi(V, &phi_v_, &d_phi_v_);
    if (!bench_.backward) return;
    Tensors({&d_out_}, "d_out", type, {S, H, V});
    Tensors({&d_gates_}, "d_gates", fp32, {S, H, 3});
    Tensors({&d_q_}, "d_q", fp32, {S, H, K});
    Tensors({&d_k_}, "d_k", fp32, {S, G, K});
    Tensors({&d_v_}, "d_v", fp32, {S, G, V});
    Tensors({&d_k_cmp_}, "d_k_cmp", fp32, {rows, G, K});
    Tensors({&d_v_cmp_}, "d_v_cmp", fp32, {rows, G, V});
  }

  void ReservePhi(int64_t width, PhiWeights* weights, PhiWeights* gradients) {
    ForPhi({nsa_.phi, bench_.sizes.kv_heads, nsa_.block, width, 2 * width}, [&](size_t i, const Shape& shape) {
      Tensors({&(*weights)[i]}, kPhiNames[i], bench_.dtype, shape);
      if (bench_.backward) Tensors({&(*gradients)[i]}, kPhiNames[i], DType::kF32, shape);
    });
  }

  // About as many values as repeat without anybody seeing it; a prime.
  static constexpr int64_t kPeriod = 4194301;

  void Normals(const Tensor& x, double scale) {
    Values(x, std::normal_distribution<float>(0, static_cast<float>(scale)));
  }

  template <typename Distribution>
  void Values(const Tensor& x, Distribution distribution) {
    std::mt19937_64 random(x.size());
    std::vector<float> values(std::min(x.size(), kPeriod));
    for (float& value : values) value = distribution(random);
    const Tensor flat = x.Reshape({x.size()}), first = flat.Rows(0, std::ssize(values));
    HostCopy(device_, *stream_, HostView(values.data(), first.shape), first);
    for (int64_t at = kPeriod; at < x.size(); at += kPeriod) {
      const int64_t count = std::min(kPeriod, x.size() - at);
      device_.Copy(*stream_, flat.Rows(at, count), flat.Rows(0, count));
    }
    stream_->Synchronize();
  }

  void FillPhi(const PhiWeights& weights, int64_t width) {
    const double from_block = 1 / std::sqrt(static_cast<double>(nsa_.block * width));
    const double from_hidden = 2 / std::sqrt(2 * static_cast<double>(width));
    const PhiSet<double> scale = {0.5, from_block, 0.3, from_hidden, 0.3, from_block};
    for (size_t i = 0; i < weights.kSize; ++i) {
      if (weights[i]) Normals(weights[i], scale[i]);
    }
  }

  void Fill() {
    for (const Tensor& x : {q_, k_, v_}) Normals(x, 1);
    Values(gates_, std::uniform_real_distribution<float>(0.1F, 0.9F));
    FillPhi(phi_k_, bench_.sizes.key_width);
    FillPhi(phi_v_, bench_.sizes.value_width);
    device_.FillBytes(*stream_, table_, 0);
    if (given_) HostCopy(device_, *stream_, HostView(bench_.selected.data(), given_.shape), given_);
    selected_ = given_ ? given_ : chosen_;
    if (bench_.backward) {
      Normals(d_out_, 1);
      for (const PhiWeights& gradients : {d_phi_k_, d_phi_v_}) {
        for (size_t i = 0; i < gradients.kSize; ++i) {
          if (gradients[i]) ops_.rows->Zero(*stream_, gradients[i]);
        }
      }
    }
    stream_->Synchronize();
  }

  // Seconds of each run, ascending, after one run that warms up.
  std::vector<double> Times(const Work& work) {
    work();
    stream_->Synchronize();
    std::vector<double> times(bench_.runs);
    for (double& seconds : times) {
      timer_->Start(*stream_);
      work();
      timer_->Stop(*stream_);
      seconds = timer_->Seconds();
    }
    stream_->Synchronize();
    std::sort(times.begin(), times.end());
    return times;
  }

  double Median(const Work& work) { return Times(work)[bench_.runs / 2]; }

  // What the device reaches: a product of square matrices of the type, and a copy. Of random values, as the stages
  // have: of equal ones a GPU, which then needs less power, makes products faster.
  void MeasureDevice() {
    const bool gpu = device_.kind() == DeviceKind::kGpu;
    const int64_t side = gpu ? 8192 : 512, bytes = int64_t{1} << (gpu ? 28 : 24);
    const Shape square = {side, side};
    const int64_t size = square.count() * DTypeSize(bench_.dtype);
    const Buffer memory(device_, std::max(3 * size, 2 * bytes), "matrices");
    const auto part = [&](int64_t offset, DType dtype, const Shape& shape) {
      return Tensor(static_cast<std::byte*>(memory.data()) + offset, dtype, device_.kind(), shape);
    };
    const Tensor a = part(0, bench_.dtype, square), b = part(size, bench_.dtype, square);
    for (const Tensor& x : {a, b}) Normals(x, 1);
    const MatMulArgs product = {.a = a, .b = b, .c = part(2 * size, bench_.dtype, square)};
    found_.matmul_tflops = 2e-12 * std::pow(side, 3) / Median([&] { ops_.dense->MatMul(*stream_, product); });
    const Tensor from = part(0, DType::kU8, {bytes}), to = part(bytes, DType::kU8, {bytes});
    found_.copy_gbps = 2e-9 * static_cast<double>(bytes) / Median([&] { device_.Copy(*stream_, to, from); });
  }

  void Time(const char* name, const char* direction, const Work& work) {
    BenchStage stage{name, direction, 0, 0, 0, 0, {}};
    try {
      work();
      stream_->Synchronize();
      Trace::Get().Reset();
      const std::vector<double> times = Times(work);
      for (const auto& [span, total] : Trace::Get().totals()) {
        stage.flops += total.flops / static_cast<double>(bench_.runs + 1);
        stage.bytes += total.bytes / static_cast<double>(bench_.runs + 1);
      }
      stage.ms = 1e3 * times[times.size() / 2];
      stage.best_ms = 1e3 * times.front();
    } catch (const Error& error) {
      stage.error = error.what();
    }
    found_.stages.push_back(stage);
  }

  // All of a direction: times every stage, then one after another.
  void TimeAll(const char* direction, const std::vector<std::pair<const char*, Work>>& stages) {
    const size_t first = found_.stages.size();
    for (const auto& [name, work] : stages) Time(name, direction, work);
    const bool refused = std::any_of(found_.stages.begin() + static_cast<int64_t>(first), found_.stages.end(),
                                     [](const BenchStage& stage) { return !stage.error.empty(); });
    if (refused) return;
    Time("whole", direction, [&] {
      for (const auto& [name, work] : stages) work();
    });
  }

  CompressArgs Compression(const Tensor& x, const Tensor& y, const PhiWeights& weights) const {
    return {segments_, x, {table_, bench_.tokens}, nsa_.phi, nsa_.block, nsa_.stride, weights, y};
  }

  BranchArgs Branch(int i) const {
    BranchArgs args;
    args.segments = segments_;
    args.q = q_;
    args.kv =
        i == kCmp ? KeysValues{k_cmp_, v_cmp_, {table_, k_cmp_.dim(0)}} : KeysValues{k_, v_, {table_, bench_.tokens}};
    args.scale = 1 / std::sqrt(static_cast<double>(bench_.sizes.key_width));
    args.o = o_[i];
    args.lse = lse_[i];
    return args;
  }

  CompressedArgs Compressed() const { return {Branch(kCmp), nsa_.block, nsa_.stride}; }
  SelectedArgs Selected() const { return {Branch(kSlc), nsa_.select_block, selected_}; }
  WindowArgs Window(int64_t window) const { return {Branch(kWin), window}; }
  CombineArgs Combine() const { return {gates_, o_[kCmp], o_[kSlc], o_[kWin], out_}; }
  SelectArgs Select() const {
    const BranchArgs branch = Branch(kCmp);
    return {.segments = segments_,
            .doc_start = {},
            .q = q_,
            .k = k_cmp_,
            .pages = branch.kv.pages,
            .lse = lse_[kCmp],
            .scale = branch.scale,
            .nsa = nsa_,
            .selected = chosen_,
            .scores = {}};
  }

  void Forward() {
    AttentionOps& attention = *ops_.attention;
    Stream& stream = *stream_;
    const int64_t scratch = CountedAllocations().scratch_bytes;
    TimeAll("forward", {{"compress",
                         [&] {
                           attention.Compress(stream, Compression(k_, k_cmp_, phi_k_));
                           attention.Compress(stream, Compression(v_, v_cmp_, phi_v_));
                         }},
                        {"compressed", [&] { attention.Compressed(stream, Compressed()); }},
                        {"select", [&] { attention.Select(stream, Select()); }},
                        {"selected", [&] { attention.Selected(stream, Selected()); }},
                        {"window", [&] { attention.Window(stream, Window(nsa_.window)); }},
                        {"combine", [&] { attention.Combine(stream, Combine()); }}});
    found_.forward_scratch_bytes = found_.backward_scratch_bytes = CountedAllocations().scratch_bytes - scratch;
  }

  void Backward() {
    AttentionOps& attention = *ops_.attention;
    Stream& stream = *stream_;
    const int64_t scratch = CountedAllocations().scratch_bytes - found_.forward_scratch_bytes;
    const auto gradient = [&](int i, const Tensor& d_k, const Tensor& d_v) {
      return BranchGradient{d_out_, d_q_, d_k, d_v, {gates_, d_gates_, i}, i == kWin};
    };
    TimeAll("backward",
            {{"combine",
              [&] {
                attention.CombineBackward(stream, Combine(), {d_out_, d_gates_});
              }},
             {"zero",
              [&] {
                for (const Tensor& x : {d_k_, d_v_, d_k_cmp_, d_v_cmp_}) ops_.rows->Zero(stream, x);
              }},
             {"window", [&] { attention.WindowBackward(stream, Window(nsa_.window), gradient(kWin, d_k_, d_v_)); }},
             {"selected", [&] { attention.SelectedBackward(stream, Selected(), gradient(kSlc, d_k_, d_v_)); }},
             {"compressed",
              [&] { attention.CompressedBackward(stream, Compressed(), gradient(kCmp, d_k_cmp_, d_v_cmp_)); }},
             {"compress", [&] {
                attention.CompressBackward(stream, Compression(k_, k_cmp_, phi_k_), {d_k_cmp_, d_k_, d_phi_k_});
                attention.CompressBackward(stream, Compression(v_, v_cmp_, phi_v_), {d_v_cmp_, d_v_, d_phi_v_});
              }}});
    found_.backward_scratch_bytes = CountedAllocations().scratch_bytes - scratch;
  }

  // Last, since it overwrites the window branch's outputs.
  void TimeFull() {
    const WindowArgs args = Window(bench_.tokens);
    Time("full", "forward", [&] { ops_.attention->Window(*stream_, args); });
    if (!bench_.backward) return;
    Time("full", "backward", [&] {
      ops_.attention->WindowBackward(*stream_, args, {d_out_, d_q_, d_k_, d_v_, {}, true});
    });
  }

  const NsaBenchCase& bench_;
  const NsaConfig& nsa_;
  Device& device_;
  Ops ops_;
  const std::unique_ptr<Stream> stream_;
  const std::unique_ptr<Timer> timer_;
  const std::vector<Segment> segments_;
  Arena arena_;
  Tensor q_, k_, v_, gates_, k_cmp_, v_cmp_, out_, table_;
  std::array<Tensor, 3> o_, lse_;
  Tensor chosen_, given_, selected_;  // by the operator; by the case; what the selected branch reads
  PhiWeights phi_k_, phi_v_, d_phi_k_, d_phi_v_;
  Tensor d_out_, d_gates_, d_q_, d_k_, d_v_, d_k_cmp_, d_v_cmp_;
  BenchCase found_;
};

}  // namespace

BenchCase DescribeNsaBench(const NsaBenchCase& bench) {
  BenchCase found;
  found.sizes = NamedSizes(bench.tokens, bench.sizes, bench.nsa);
  found.phi = PhiName(bench.nsa.phi);
  found.selection = bench.selection;
  return found;
}

BenchCase BenchNsa(Device& device, const NsaBenchCase& bench) { return NsaBench(device, bench).Run(); }

}  // namespace longspan
