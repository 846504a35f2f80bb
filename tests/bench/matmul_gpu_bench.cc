// Rate of DenseOps::MatMul on a GPU beside cuBLASLt called alone, over the products of one training step of nsa_102m
// and nsa_1b (configs/) at 65,536 tokens: projections, feed-forward and head, each forward, input gradient and weight
// gradient, in the model's chunks and types. Alone means the fastest of the 16 algorithms that the heuristic names, by
// timing, with the same workspace. Exits 1 when the ratio of the rates, weighted by the step's FLOPs, is under 0.80.
//
//   matmul_gpu_bench [rounds=7]
#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>

#include "kernels/dense/gpu.h"
#include "tests/support/gpu_random.h"

namespace longspan::test {
namespace {

constexpr double kRequiredRatio = 0.80;
constexpr int kAlgorithms = 16;
constexpr size_t kWorkspaceBytes = size_t{32} << 20;
constexpr int64_t kPoolBytes = int64_t{1} << 30;  // much more than the L2 cache
constexpr double kRoundMs = 4;                    // of work between two events

struct Product {
  std::string name;
  int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;
  DType result;
  double times;  // of a training step
  double flops() const { return 2.0 * m * n * k; }
};

struct Model {
  const char* name;
  int64_t layers, hidden, heads, groups, width, ffn, vocabulary;
};

// Weight [in, out] on `rows` rows of activations; `adds` says which results are added to the residual stream or to
// another's gradient.
struct Linear {
  const char* name;
  int64_t in, out, rows;
  double times;
  bool forward_adds, gradient_adds;
};

std::vector<Product> ProductsOf(const Model& model) {
  constexpr int64_t kTokens = 65536, kFeedForwardRows = 8192;  // FeedForward::kChunk
  const int64_t D = model.hidden, F = model.ffn, values = model.heads * model.width;
  const double layers = static_cast<double>(model.layers), chunks = layers * kTokens / kFeedForwardRows;
  std::vector<Product> products;
  for (const Linear& l : {Linear{"q", D, values, kTokens, layers, false, false},
                          Linear{"k, v", D, model.groups * model.width, kTokens, 2 * layers, false, true},
                          Linear{"gates", D, 3 * model.heads, kTokens, layers, false, true},
                          Linear{"o", values, D, kTokens, layers, true, false},
                          Linear{"ffn gate, up", D, F, kFeedForwardRows, 2 * chunks, false, true},
                          Linear{"ffn down", F, D, kFeedForwardRows, chunks, true, false}}) {
    const auto add = [&](const char* what, int64_t m, int64_t n, int64_t k, bool a, bool b, bool adds, DType result) {
      products.push_back({fmt::format("{} {}", l.name, what), m, n, k, a, b, adds, result, l.times});
    };
    add("forward", l.rows, l.out, l.in, false, false, l.forward_adds, DType::kBf16);
    add("input gradient", l.rows, l.in, l.out, false, true, l.gradient_adds, DType::kBf16);
    add("weight gradient", l.in, l.out, l.rows, true, false, true, DType::kF32);
  }
  // As kernels/train/loss_gpu.cu: the weight is [X,D], logits in F32 and their gradient in BF16 for as many rows as 384
  // MiB hold.
  const int64_t X = model.vocabulary, rows = (int64_t{384} << 20) / (X * 6) / 128 * 128;
  const double times = static_cast<double>(kTokens) / static_cast<double>(rows);
  products.push_back({"head forward", rows, X, D, false, true, false, DType::kF32, times});
  products.push_back({"head input gradient", rows, D, X, false, false, false, DType::kBf16, times});
  products.push_back({"head weight gradient", X, D, rows, true, false, true, DType::kF32, times});
  return products;
}

void LtCheck(cublasStatus_t status, const char* what) {
  LS_CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt, {}: {}", what, cublasLtGetStatusString(status));
}

// One of cuBLASLt's handles; `make` is the call that makes it, but for its first argument.
template <auto make, auto destroy>
class Lt {
 public:
  template <typename... Args>
  explicit Lt(Args... args) {
    LtCheck(make(&handle_, args...), "making a handle");
  }
  ~Lt() { destroy(handle_); }
  Lt(const Lt&) = delete;
  Lt& operator=(const Lt&) = delete;
  auto operator*() const { return handle_; }

 private:
  template <typename T>
  static T Pointee(cublasStatus_t (*)(T));
  decltype(Pointee(destroy)) handle_ = nullptr;
};
using Library = Lt<cublasLtCreate, cublasLtDestroy>;
using Operation = Lt<cublasLtMatmulDescCreate, cublasLtMatmulDescDestroy>;
using Layout = Lt<cublasLtMatrixLayoutCreate, cublasLtMatrixLayoutDestroy>;
using Preference = Lt<cublasLtMatmulPreferenceCreate, cublasLtMatmulPreferenceDestroy>;

// Operands of one call.
struct Operands {
  Tensor a, b, c;
};

// cuBLASLt for one product. It reads matrices by columns, so it is given c^T = op(b)^T op(a)^T.
class Alone {
 public:
  Alone(const Product& p, const Library& library, void* workspace, cudaStream_t stream)
      : library_(library),
        workspace_(workspace),
        stream_(stream),
        beta_(p.accumulate ? 1.0f : 0.0f),
        operation_(CUBLAS_COMPUTE_32F, CUDA_R_32F),
        left_(CUDA_R_16BF, Size(p.transpose_b ? p.k : p.n), Size(p.transpose_b ? p.n : p.k), p.transpose_b ? p.k : p.n),
        right_(CUDA_R_16BF, Size(p.transpose_a ? p.m : p.k), Size(p.transpose_a ? p.k : p.m),
               p.transpose_a ? p.m : p.k),
        result_(p.result == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF, Size(p.n), Size(p.m), p.n) {
    Transpose(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b);
    Transpose(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a);
    const Preference preference;
    LtCheck(cublasLtMatmulPreferenceSetAttribute(*preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                 &kWorkspaceBytes, sizeof kWorkspaceBytes),
            "workspace");
    int count = 0;
    algorithms_.resize(kAlgorithms);
    LtCheck(cublasLtMatmulAlgoGetHeuristic(*library_, *operation_, *left_, *right_, *result_, *result_, *preference,
                                           kAlgorithms, algorithms_.data(), &count),
            "algorithms");
    algorithms_.resize(count);
    std::erase_if(algorithms_, [](const auto& found) { return found.state != CUBLAS_STATUS_SUCCESS; });
    LS_CHECK(!algorithms_.empty(), "{}: cuBLASLt knows no algorithm", p.name);
  }

  size_t algorithms() const { return algorithms_.size(); }
  void Run(size_t algorithm, const Operands& x) const {
    const float alpha = 1;
    LtCheck(
        cublasLtMatmul(*library_, *operation_, &alpha, x.b.data, *left_, x.a.data, *right_, &beta_, x.c.data, *result_,
                       x.c.data, *result_, &algorithms_[algorithm].algo, workspace_, kWorkspaceBytes, stream_),
        "product");
  }

 private:
  static uint64_t Size(int64_t size) { return static_cast<uint64_t>(size); }
  void Transpose(cublasLtMatmulDescAttributes_t which, bool transpose) {
    const cublasOperation_t value = transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
    LtCheck(cublasLtMatmulDescSetAttribute(*operation_, which, &value, sizeof value), "transposition");
  }

  const Library& library_;
  void* workspace_;
  cudaStream_t stream_;
  float beta_;
  Operation operation_;
  Layout left_, right_, result_;
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms_;
};

// Where operands come from: each call takes the next piece, so that none is in the cache from the last.
class Pool {
 public:
  Pool(const Machine& gpu, uint64_t seed) : memory_(RandomOnGpu(gpu, "operands", seed, {kPoolBytes / 2})) {}
  Tensor Take(DType dtype, const Shape& shape) {
    const int64_t bytes = (shape.count() * DTypeSize(dtype) + 255) / 256 * 256;
    LS_CHECK(bytes <= kPoolBytes, "an operand of {} bytes is more than the pool's {}", bytes, kPoolBytes);
    if (next_ + bytes > kPoolBytes) next_ = 0;
    const Tensor piece(static_cast<char*>(memory_.view().data) + next_, dtype, DeviceKind::kGpu, shape);
    next_ += bytes;
    return piece;
  }

 private:
  OwnedTensor memory_;  // BF16
  int64_t next_ = 0;
};

class Bench {
 public:
  explicit Bench(int rounds)
      : rounds_(rounds),
        gpu_(GpuMachine(DType::kBf16)),
        stream_(CudaStream(*gpu_.stream)),
        workspace_(gpu_, "workspace", DType::kU8, {static_cast<int64_t>(kWorkspaceBytes)}),
        dense_(MakeGpuDense()),
        a_(gpu_, 1),
        b_(gpu_, 2),
        c_(gpu_, 3) {
    for (cudaEvent_t* event : {&begin_, &end_}) CudaCheck(cudaEventCreate(event), "event");
  }
  ~Bench() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }

  // Prints the model's table and adds to the sums over all models.
  void Run(const Model& model) {
    fmt::print("{}\n{:<30}{:>7}{:>7}{:>7}{:>10}{:>10}{:>10}{:>10}{:>8}\n", model.name, "product", "m", "n", "k",
               "ours ms", "TFLOP/s", "alone ms", "TFLOP/s", "ratio");
    double flops = 0, weighted = 0;
    for (const Product& p : ProductsOf(model)) {
      const auto [ours, alone] = Measure(p);
      const double ratio = alone / ours, rate = p.flops() * 1e-9;
      fmt::print("{:<30}{:>7}{:>7}{:>7}{:>10.3f}{:>10.1f}{:>10.3f}{:>10.1f}{:>8.2f}\n", p.name, p.m, p.n, p.k, ours,
                 rate / ours, alone, rate / alone, ratio);
      std::fflush(stdout);
      flops += p.times * p.flops();
      weighted += p.times * p.flops() * ratio;
    }
    fmt::print("{}: ratio weighted by FLOPs {:.3f}\n\n", model.name, weighted / flops);
    flops_ += flops;
    weighted_ += weighted;
  }

  double ratio() const { return weighted_ / flops_; }

 private:
  struct Milliseconds {
    double ours, alone;
  };

  // Medians of rounds that alternate, so that a change of clocks meets both.
  Milliseconds Measure(const Product& p) {
    const Alone alone(p, library_, workspace_.view().data, stream_);
    const auto take = [&] {
      return Operands{a_.Take(DType::kBf16, p.transpose_a ? Shape{p.k, p.m} : Shape{p.m, p.k}),
                      b_.Take(DType::kBf16, p.transpose_b ? Shape{p.n, p.k} : Shape{p.k, p.n}),
                      c_.Take(p.result, {p.m, p.n})};
    };
    const auto run_ours = [&] {
      const Operands x = take();
      dense_->MatMul(*gpu_.stream, {x.a, x.b, x.c, p.transpose_a, p.transpose_b, p.accumulate});
    };
    run_ours();
    const int calls = std::clamp(static_cast<int>(kRoundMs / Time(run_ours, 3)), 2, 100);
    size_t best = 0;
    double best_ms = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < alone.algorithms(); ++i) {
      const auto run = [&] { alone.Run(i, take()); };
      run();
      const double ms = std::min(Time(run, calls), Time(run, calls));
      if (ms < best_ms) {
        best = i;
        best_ms = ms;
      }
    }
    std::vector<double> ours_ms, alone_ms;
    for (int round = 0; round < rounds_; ++round) {
      ours_ms.push_back(Time(run_ours, calls));
      alone_ms.push_back(Time([&] { alone.Run(best, take()); }, calls));
    }
    Trace::Get().Reset();
    return {Median(ours_ms), Median(alone_ms)};
  }

  // Milliseconds of a call, of so many in a row.
  double Time(const std::function<void()>& call, int calls) {
    float milliseconds = 0;
    CudaCheck(cudaEventRecord(begin_, stream_), "timing");
    for (int i = 0; i < calls; ++i) call();
    CudaCheck(cudaEventRecord(end_, stream_), "timing");
    CudaCheck(cudaEventSynchronize(end_), "timing");
    CudaCheck(cudaEventElapsedTime(&milliseconds, begin_, end_), "timing");
    return milliseconds / calls;
  }

  static double Median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
    return values[values.size() / 2];
  }

  int rounds_;
  Machine gpu_;
  cudaStream_t stream_;
  OwnedTensor workspace_;
  std::unique_ptr<DenseOps> dense_;
  Library library_;
  Pool a_, b_, c_;
  cudaEvent_t begin_, end_;
  double flops_ = 0, weighted_ = 0;
};

int Main(int argc, char** argv) {
  if (GpuCount() == 0) {
    fmt::print("no GPU\n");
    return 77;
  }
  Bench bench(argc > 1 ? std::atoi(argv[1]) : 7);
  bench.Run({"nsa_102m", 12, 768, 16, 1, 64, 2048, 32768});
  bench.Run({"nsa_1b", 20, 2048, 32, 2, 128, 5632, 50304});
  const double ratio = bench.ratio();
  fmt::print("rate of DenseOps::MatMul / cuBLASLt alone, weighted by FLOPs: {:.3f}, required {:.2f}{}\n", ratio,
             kRequiredRatio, ratio >= kRequiredRatio ? "" : ": too slow");
  return ratio >= kRequiredRatio ? 0 : 1;
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
