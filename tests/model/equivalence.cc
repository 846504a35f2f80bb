// One row of the table that tests/model/equivalence.sh prints: one step of a small model over dp x cp ranks against the
// same step on one rank of a CPU, whose selections are given to all.
//
//   mpirun -np DP*CP equivalence DEVICE DTYPE DP CP EXCHANGE TRANSPORT      e.g. GPU BF16 2 2 FETCH AUTO
//
// The step has two sequences, one of uneven documents, one whole; the replicas share them out, or one accumulates both.
// Every parameter's gradient, summed over all ranks as for the optimizer, and every token's loss are compared; a second
// run must give the same bits. The first rank prints the row, fields between tabs, and on stderr every gradient that is
// off. Exit status: 0 good, 1 something is off, 77 no GPU.
//
// Allowed: 1e-5 in F32, 0.01 in BF16. The BF16 reference rounds what a GPU stores in BF16
// (tests/support/rounding_ops.h), but a last bit of F32 before a rounding can be one of BF16 after it, and a few
// roundings later two devices are as far apart as any two BF16 runs. So on a GPU, kApart times the most that rounding
// alone moves any gradient of the reference is allowed, where that is more than 0.01.
#include <algorithm>
#include <cmath>
#include <map>

#include "kernels/host_copy.h"
#include "launch/commands/verify.h"
#include "launch/data/batches.h"
#include "launch/data/random_source.h"
#include "launch/job/binding.h"
#include "launch/job/world.h"
#include "model/network/session.h"
#include "parallel/comm/gpu_comm.h"
#include "parallel/comm/local_comm.h"
#include "parallel/comm/mesh.h"
#include "parallel/exchange/sequence_rows.h"
#include "runtime/trace.h"
#include "tests/support/rounding_ops.h"

namespace longspan {
namespace {

constexpr int kSequences = 2;  // of the step
constexpr int kSkipped = 77;
constexpr double kApart =
    1.5;  // two values that are independently rounded are sqrt(2) of one's error apart; and a margin
constexpr float kEmbeddingScale = 64;

struct Options {
  DeviceKind device;
  DType dtype;
  int64_t dp, cp;
  SelectedExchange exchange;
  Transport transport;
};

template <typename T>
T Named(const std::map<std::string, T>& names, const std::string& text) {
  const auto found = names.find(text);
  if (found == names.end()) Fail(ExitCode::kUsage, "equivalence: '{}' is not known here", text);
  return found->second;
}

Options Parse(int argc, char** argv) {
  if (argc != 7) Fail(ExitCode::kUsage, "equivalence: expected DEVICE DTYPE DP CP EXCHANGE TRANSPORT");
  return {
      Named<DeviceKind>({{"CPU", DeviceKind::kCpu}, {"GPU", DeviceKind::kGpu}}, argv[1]),
      Named<DType>({{"F32", DType::kF32}, {"BF16", DType::kBf16}}, argv[2]),
      std::stoll(argv[3]),
      std::stoll(argv[4]),
      Named<SelectedExchange>({{"GATHER", SelectedExchange::kGather}, {"FETCH", SelectedExchange::kFetch}}, argv[5]),
      Named<Transport>({{"AUTO", Transport::kAuto},
                        {"NCCL", Transport::kNccl},
                        {"STAGED", Transport::kStaged},
                        {"PEER", Transport::kPeer}},
                       argv[6])};
}

// Widths that tensor cores take; two blocks of 64 tokens a rank at cp = 8.
SessionConfig Config(SelectedExchange exchange) {
  SessionConfig config;
  config.model.layers = 3;
  config.model.hidden = 128;
  config.model.heads = 4;
  config.model.kv_heads = 2;
  config.model.key_width = config.model.value_width = 64;
  config.model.ffn = 192;
  config.model.vocab = 96;
  config.model.tied_head = false;
  config.model.nsa.select = 4;
  config.model.nsa.window = 90;
  config.sequence_length = 1024;
  config.parallel.selected_exchange = exchange;
  return config;
}

struct Outcome {
  std::vector<float> losses;        // [sequences,T]
  std::vector<float> gradients;     // a flat buffer of the parameter table
  std::vector<int32_t> selections;  // [sequences,layers,T,G,N]
};

// What a CPU rounds to BF16.
enum class Rounding { kNone, kWeights, kStored };

// One rank's part of the step.
class Part {
 public:
  Part(const SessionConfig& config, Device& device, Communicator& cp, DType dtype, Rounding rounding)
      : config_(config),
        session_(config, device, cp, dtype, rounding == Rounding::kStored ? MakeRoundingOps() : Ops()),
        frozen_(config.model.layers),
        batches_(kSequences) {
    const int64_t length = config.sequence_length;
    const NsaConfig& nsa = config.model.nsa;
    for (Tensor& frozen : frozen_) {
      session_.arena().Reserve(&frozen, MemoryUse::kWorkspace, "frozen selection", DType::kI32,
                               {session_.layout().tokens(), config.model.kv_heads, nsa.select});
    }
    session_.Start(/*seed=*/1);
    if (rounding != Rounding::kNone) RoundToBf16(session_.compute(), params().weights());
    EnlargeEmbedding(device);
    for (int sequence = 0; sequence < kSequences; ++sequence) {
      const RandomSource source(length, config.model.vocab, nsa.select_block, sequence == 0);
      BatchLoader(source, session_.layout(), cp.rank(), nsa, /*seed=*/1).Load(sequence, batches_[sequence]);
      labels_ += batches_[sequence].labels;
    }
  }

  // Runs the sequences first, first + every, ..; `selections`, of whole sequences, instead of its own choice.
  Outcome Run(int first, int every, const std::vector<int32_t>* selections) {
    Outcome outcome;
    Transformer& model = session_.model();
    session_.ops().rows->Zero(session_.compute(), params().gradients());
    for (int sequence = first; sequence < kSequences; sequence += every) {
      if (selections) Freeze(sequence, *selections);
      session_.Load(batches_[sequence], 1 / static_cast<double>(labels_));
      model.ForwardBackward(session_.inputs());
      Append(session_.ToHost<float>(model.token_loss()), &outcome.losses);
      for (int64_t layer = 0; layer < config_.model.layers; ++layer) {
        Append(session_.ToHost<int32_t>(model.attention(layer).nsa()->selected()), &outcome.selections);
      }
    }
    outcome.gradients = session_.ToHost<float>(params().gradients());
    return outcome;
  }

  Session& session() { return session_; }
  const ParamTable& params() { return session_.model().params(); }

 private:
  // The stream of a trained model is larger than what a layer adds to it; at the start of training it is not, and
  // roundings add up over the layers.
  void EnlargeEmbedding(Device& device) {
    const Tensor& table = params().Find("embedding.weight").weight;
    std::vector<float> values = session_.ToHost<float>(table);
    for (float& x : values) x *= kEmbeddingScale;  // a power of two: exact in BF16
    HostCopy(device, session_.compute(), HostView(values.data(), table.shape), table);
  }

  template <typename T>
  static void Append(const std::vector<T>& values, std::vector<T>* to) {
    to->insert(to->end(), values.begin(), values.end());
  }

  void Freeze(int sequence, const std::vector<int32_t>& selections) {
    const int64_t length = config_.sequence_length, layers = config_.model.layers;
    const Shape shape{length, config_.model.kv_heads, config_.model.nsa.select};
    for (int64_t layer = 0; layer < layers; ++layer) {
      const int32_t* const whole = selections.data() + (sequence * layers + layer) * shape.count();
      const Context& context = session_.context();
      const SequenceRows rows{context.device, context.compute, context.comm, context.cp, context.layout, length};
      rows.Scatter(HostView(whole, shape), frozen_[layer]);
      session_.model().attention(layer).nsa()->FreezeSelection(frozen_[layer]);
    }
  }

  const SessionConfig config_;
  Session session_;
  std::vector<Tensor> frozen_;  // by layer
  std::vector<Batch> batches_;
  int64_t labels_ = 0;  // of the step
};

// The step over all ranks.
class Ranks {
 public:
  explicit Ranks(const Options& options)
      : options_(options),
        config_(Config(options.exchange)),
        binding_(BindRank(options.device, true)),
        mesh_(MakeMpiWorld(), options.dp, options.cp, *binding_.device, options.transport),
        part_(config_, *binding_.device, mesh_.cp(), gpu() ? options.dtype : DType::kF32,
              !gpu() && narrow() ? Rounding::kStored : Rounding::kNone) {}

  int Compare() {
    const double begin = WallSeconds();
    MakeReference();
    const Outcome found = Run();
    const Outcome again = Run();
    const int64_t changed = again.losses != found.losses || again.gradients != found.gradients ? 1 : 0;
    const bool repeated = Reduced(changed, ReduceOp::kMax) == 0;
    const double loss_error = LossError(found.losses);
    const bool root = mesh_.world().rank() == 0;
    const int64_t off = root && !Print(found, loss_error, repeated, WallSeconds() - begin) ? 1 : 0;
    return static_cast<int>(Reduced(off, ReduceOp::kMax));
  }

 private:
  bool gpu() const { return options_.device == DeviceKind::kGpu; }
  bool narrow() const { return options_.dtype == DType::kBf16; }

  // On the first rank's CPU; then all have it.
  void MakeReference() {
    if (mesh_.world().rank() == 0) {
      const auto cpu = MakeCpuDevice();
      const auto self = MakeLocalCommunicator(*cpu);
      const auto run = [&](Rounding rounding, const std::vector<int32_t>* selections) {
        return Part(config_, *cpu, *self, DType::kF32, rounding).Run(0, 1, selections);
      };
      reference_ = run(narrow() ? Rounding::kStored : Rounding::kNone, nullptr);
      if (narrow() && gpu()) {
        const Outcome exact = run(Rounding::kWeights, &reference_.selections);
        const auto moved = CompareGradients(part_.params(), exact.gradients, reference_.gradients);
        allowed_gradient_ = std::max(allowed_, kApart * WorstGradient(moved).ratio);
      }
    }
    Share(&reference_.losses);
    Share(&reference_.gradients);
    Share(&reference_.selections);
  }

  template <typename T>
  void Share(std::vector<T>* values) {
    const auto size = Reduced<int64_t>(std::ssize(*values), ReduceOp::kMax);
    values->resize(size);
    mesh_.host_world().Broadcast(*host_stream_, HostView(values->data(), {size}), 0);
    host_stream_->Synchronize();
  }

  template <typename T>
  T Reduced(T value, ReduceOp op) {
    mesh_.host_world().AllReduce(*host_stream_, HostView(&value, {1}), op);
    host_stream_->Synchronize();
    return value;
  }

  // Losses of this rank's tokens, gradients summed over all ranks.
  Outcome Run() {
    Outcome outcome = part_.Run(mesh_.dp_index(), mesh_.dp_size(), &reference_.selections);
    Session& session = part_.session();
    const Tensor& gradients = part_.params().gradients();
    mesh_.world().AllReduce(session.comm(), gradients, ReduceOp::kSum);
    session.comm().Synchronize();
    outcome.gradients = session.ToHost<float>(gradients);
    return outcome;
  }

  // RMS of the error of all tokens' losses / RMS of the losses.
  double LossError(const std::vector<float>& losses) {
    const Layout& layout = part_.session().layout();
    double error = 0, squares = 0;
    const float* found = losses.data();
    for (int sequence = mesh_.dp_index(); sequence < kSequences; sequence += mesh_.dp_size()) {
      const float* const expected = reference_.losses.data() + sequence * layout.sequence();
      for (const Segment& segment : layout.segments(mesh_.cp_index())) {
        for (int64_t i = 0; i < segment.length; ++i) {
          const double loss = expected[segment.begin + i];
          error += std::pow(found[segment.row + i] - loss, 2);
          squares += loss * loss;
        }
      }
      found += layout.tokens();
    }
    return std::sqrt(Reduced(error, ReduceOp::kSum) / Reduced(squares, ReduceOp::kSum));
  }

  bool Print(const Outcome& found, double loss_error, bool repeated, double seconds) {
    const std::vector<GradientRow> rows = CompareGradients(part_.params(), reference_.gradients, found.gradients);
    for (const GradientRow& row : rows) {
      if (row.ratio <= allowed_gradient_) continue;
      fmt::print(stderr, "{}: RMS {:.3e}, RMS error {:.3e}, ratio {:.2e}\n", row.name, row.reference, row.error,
                 row.ratio);
    }
    const GradientRow& worst = WorstGradient(rows);
    const bool good = worst.ratio <= allowed_gradient_ && loss_error <= allowed_ && repeated;
    fmt::print("{}\t{}\t{} x {}\t{}\t{}\t{}\t{:.1e}\t{:.1e}\t{:.1e}\t{}\t{}\t{:.1f}\n", gpu() ? "GPU" : "CPU",
               DTypeName(options_.dtype), options_.dp, options_.cp,
               options_.exchange == SelectedExchange::kFetch ? "FETCH" : "GATHER", mesh_.world().transport(),
               worst.name, worst.ratio, loss_error, allowed_gradient_, repeated ? "same bits" : "OTHER BITS",
               good ? "PASS" : "FAIL", seconds);
    return good;
  }

  const Options options_;
  const SessionConfig config_;
  const std::unique_ptr<Stream> host_stream_ = MakeCpuDevice()->MakeStream("host");
  const Binding binding_;
  const Mesh mesh_;
  Part part_;
  const double allowed_ = narrow() ? 0.01 : 1e-5;  // largest ratio of RMS error to RMS
  double allowed_gradient_ = allowed_;
  Outcome reference_;          // whole, on every rank
  const TransferGuard guard_;  // last: goes first
};

int Run(const Options& options) {
  if (options.device == DeviceKind::kGpu && GpuCount() == 0) return kSkipped;
  return Ranks(options).Compare();
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) {
  return longspan::RunAndReport([&] {
    const longspan::World world;
    return longspan::Run(longspan::Parse(argc, argv));
  });
}
