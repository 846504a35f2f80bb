#include "launch/commands/bench_layer.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <string_view>

#include "kernels/host_copy.h"
#include "launch/commands/attention_metadata.h"
#include "launch/commands/bench_sizes.h"
#include "launch/commands/option_values.h"
#include "launch/job/job.h"
#include "launch/job/world.h"
#include "launch/report/bench_report.h"
#include "launch/version.h"
#include "model/attention/nsa.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

struct LayerBenchOptions {
  BenchSizes sizes;
  std::vector<LayoutKind> layouts = {LayoutKind::kHeadTail};
  std::vector<SelectedExchange> exchanges = {SelectedExchange::kGather};
  int64_t transfer_processors = 0;
  bool recompute = false, share_gpu = false;
};

struct LayerCase {
  int64_t tokens = 0;
  AttentionCore::Sizes sizes{};
  NsaConfig nsa;
  LayoutKind layout = LayoutKind::kHeadTail;
  SelectedExchange exchange = SelectedExchange::kGather;
};

// One rank's part of a case.
class LayerBench {
 public:
  LayerBench(const LayerBenchOptions& options, const LayerCase& bench, Device& device, Communicator& cp)
      : options_(options),
        bench_(bench),
        device_(device),
        ops_(MakeOps(device.kind())),
        compute_(device.MakeStream("compute")),
        comm_(device.MakeStream("comm")),
        timer_(device.MakeTimer()),
        layout_(bench.layout, bench.tokens, cp.size(), bench.nsa.select_block),
        context_{device_, ops_, *compute_, *comm_, cp, layout_, options.sizes.Type(), DType::kF32},
        core_(context_, bench.sizes, bench.nsa, bench.exchange,
              1 / std::sqrt(static_cast<double>(bench.sizes.key_width))) {
    ops_.attention->LeaveProcessors(*compute_, options.transfer_processors);
    Reserve();
    arena_.Commit(device_);
    core_.Start();
    Fill();
  }

  // Collective.
  LayerBenchCase Run(Job& job) {
    const auto [heads, groups, key_width, value_width] = bench_.sizes;
    LayerBenchCase found;
    found.sizes = NamedSizes(bench_.tokens, bench_.sizes, bench_.nsa);
    found.phi = PhiName(bench_.nsa.phi);
    found.layout = bench_.layout == LayoutKind::kHeadTail ? "HEAD_TAIL" : "CONTIGUOUS";
    found.selected_exchange = bench_.exchange == SelectedExchange::kGather ? "GATHER" : "FETCH";
    found.kernels = device_.kind() == DeviceKind::kCpu
                        ? "cpu"
                        : ops_.attention->Kernels(*compute_, {context_.dtype, heads, groups, key_width, value_width});
    // A run of both warms up.
    Forward();
    Backward();
    found.forward = Time(job, [&] { Forward(); });
    found.backward = Time(job, [&] { Backward(); });
    ops_.attention->HashSelection(*compute_, {context_.segments(), core_.selected(), hash_});
    compute_->Synchronize();
    context_.cp.AllReduce(*comm_, hash_, ReduceOp::kSum);
    comm_->Synchronize();
    found.selection = static_cast<uint64_t>(HostValues<int64_t>(device_, *compute_, hash_)[0]);
    const std::vector<double> most = job.Reduce({{core_.coverage(), ReduceOp::kMax},
                                                 {static_cast<double>(core_.borrowed_bytes()), ReduceOp::kMax},
                                                 {static_cast<double>(job.MemoryBytes()), ReduceOp::kMax}});
    found.coverage = most[0];
    found.borrowed_bytes = static_cast<int64_t>(most[1]);
    found.memory_bytes = static_cast<int64_t>(most[2]);
    return found;
  }

 private:
  void Reserve() {
    core_.Reserve(arena_, "attention", MemoryUse::kActivations);
    core_.ReserveGradients(arena_, &gradients_);
    arena_.Reserve(&d_out_, MemoryUse::kWorkspace, "d_out", context_.dtype,
                   {layout_.tokens(), bench_.sizes.heads, bench_.sizes.value_width});
    arena_.Reserve(&hash_, MemoryUse::kWorkspace, "hash", DType::kI64, {1});
    arena_.Reserve(&values_, MemoryUse::kWorkspace, "values", context_.dtype, {kPeriod});
    ReservePhi(bench_.sizes.key_width, &phi_.k, &phi_.d_k);
    ReservePhi(bench_.sizes.value_width, &phi_.v, &phi_.d_v);
  }

  void ReservePhi(int64_t width, PhiWeights* weights, PhiWeights* gradients) {
    ForPhi({bench_.nsa.phi, bench_.sizes.kv_heads, bench_.nsa.block, width, 2 * width},
           [&](size_t i, const Shape& shape) {
             arena_.Reserve(&(*weights)[i], MemoryUse::kWeights, kPhiNames[i], context_.dtype, shape);
             arena_.Reserve(&(*gradients)[i], MemoryUse::kGradients, kPhiNames[i], DType::kF32, shape);
           });
  }

  // About as many values as repeat without anybody seeing it; a prime.
  static constexpr int64_t kPeriod = 4194301;

  template <typename Distribution>
  void Draw(Distribution distribution) {
    std::mt19937_64 random(kPeriod);
    std::vector<float> values(kPeriod);
    for (float& value : values) value = distribution(random);
    HostCopy(device_, *compute_, HostView(values.data(), values_.shape), values_);
  }

  // Values from `place` of the period on.
  void Take(const Tensor& flat, int64_t place) {
    for (int64_t done = 0; done < flat.size();) {
      const int64_t at = (place + done) % kPeriod, count = std::min(kPeriod - at, flat.size() - done);
      device_.Copy(*compute_, flat.Rows(done, count), values_.Rows(at, count));
      done += count;
    }
  }

  // x [T,..]: each row has what its place in the sequence says.
  void TakeRows(const Tensor& x, int64_t place) {
    const int64_t width = x.size() / x.dim(0);
    for (const Segment& segment : context_.segments()) {
      const Tensor rows = x.Rows(segment.row, segment.length);
      Take(rows.Reshape({rows.size()}), place + segment.begin * width);
    }
  }

  void Fill() {
    Draw(std::normal_distribution<float>(0, 1));
    TakeRows(core_.q(), 0);
    const KeyRows& own = core_.rows()[0];
    TakeRows(own.rotated_k, 1000003);
    TakeRows(own.v, 2000003);
    TakeRows(d_out_, 3000017);
    // Small, so that compressed keys and values are about as large as others.
    Draw(std::normal_distribution<float>(0, 0.02F));
    for (const PhiWeights& weights : {phi_.k, phi_.v}) {
      for (size_t i = 0; i < weights.kSize; ++i) {
        if (weights[i]) Take(weights[i].Reshape({weights[i].size()}), static_cast<int64_t>(i) * 1000003);
      }
    }
    for (const PhiWeights& gradients : {phi_.d_k, phi_.d_v}) {
      for (size_t i = 0; i < gradients.kSize; ++i) {
        if (gradients[i]) ops_.rows->Zero(*compute_, gradients[i]);
      }
    }
    Draw(std::uniform_real_distribution<float>(0.1F, 0.9F));
    TakeRows(core_.gates(), 0);
    core_.SetPhi(phi_);
    compute_->Synchronize();
  }

  void Forward() {
    core_.LendRows();
    core_.Forward(inputs_);
  }
  void Backward() {
    if (options_.recompute) Forward();
    core_.Backward(inputs_, d_out_, gradients_);
    core_.ReturnRows(inputs_, gradients_);
    core_.AwaitRows();
  }

  template <typename Work>
  LayerPass Time(Job& job, const Work& work) {
    Trace::Get().Reset();
    std::vector<double> times(options_.sizes.runs);
    for (double& seconds : times) {
      context_.cp.Barrier();
      timer_->Start(*compute_);
      work();
      timer_->Stop(*compute_);
      seconds = job.Reduce(timer_->Seconds(), ReduceOp::kMax);
    }
    compute_->Synchronize();
    comm_->Synchronize();
    // On a CPU kernels wait for every transfer.
    const std::string_view waits = device_.kind() == DeviceKind::kCpu ? "comm." : "stall.";
    double exposed = 0;
    for (const auto& [name, total] : Trace::Get().totals()) {
      if (name.starts_with(waits)) exposed += total.seconds;
    }
    std::sort(times.begin(), times.end());
    const double runs = static_cast<double>(options_.sizes.runs);
    return {1e3 * times[times.size() / 2], 1e3 * times.front(), 1e3 * job.Reduce(exposed / runs, ReduceOp::kMax)};
  }

  const LayerBenchOptions& options_;
  const LayerCase& bench_;
  Device& device_;
  Ops ops_;
  const std::unique_ptr<Stream> compute_, comm_;
  const std::unique_ptr<Timer> timer_;
  const Layout layout_;
  const Context context_;
  Arena arena_;
  NsaCore core_;
  const SequenceInputs inputs_;  // one document
  AttentionGradients gradients_;
  PhiPair phi_;
  Tensor d_out_, hash_, values_;
};

std::vector<LayerCase> Cases(const LayerBenchOptions& options) {
  const std::vector<int64_t> lengths = options.sizes.Lengths();
  std::vector<LayerCase> cases;
  for (const std::string& shape : options.sizes.shapes) {
    for (const int64_t tokens : lengths) {
      for (const LayoutKind layout : options.layouts) {
        for (const SelectedExchange exchange : options.exchanges) {
          LayerCase& bench =
              cases.emplace_back(LayerCase{tokens, BenchSizes::ParseShape(shape), options.sizes.nsa, layout, exchange});
          bench.nsa.kv_branches = KvBranches::kShared;
          bench.nsa.compress_rope = CompressRope::kBefore;  // keys are taken as they are
        }
      }
    }
  }
  return cases;
}

// Ranks, layout and exchange change no choice. Of cases that differ in layout and exchange alone, which stand together.
void CheckSelections(const std::vector<LayerBenchCase>& cases) {
  const LayerBenchCase* first = nullptr;
  for (const LayerBenchCase& found : cases) {
    if (!first || first->sizes != found.sizes) first = &found;
    if (found.selection == first->selection) continue;
    Fail(ExitCode::kRankFailed, "bench layer: {} {}: expected the selection {:016x} of {} {}, found {:016x}",
         found.layout, found.selected_exchange, first->selection, first->layout, first->selected_exchange,
         found.selection);
  }
}

int RunBenchLayer(const LayerBenchOptions& options) {
  const World world;
  const std::vector<LayerCase> cases = Cases(options);
  const bool root = world.rank() == 0;
  if (root && !options.sizes.json.empty()) OutputFile writable(options.sizes.json);
  LayerBenchReport report{Version(),         "", DTypeName(options.sizes.Type()), options.sizes.runs, world.size(),
                          options.recompute, {}};
  for (const LayerCase& bench : cases) {
    // A job for each, so that the next has all memory.
    Job job(options.sizes.OnGpu() ? DeviceKind::kGpu : DeviceKind::kCpu,
            {.cp = world.size(), .share_gpu = options.share_gpu});
    if (root && report.device.empty()) {
      report.device = job.device().name();
      fmt::print("longspan bench layer: {} {}, {}, {}, medians of {} runs{}; ms and MiB of a rank\n{}", world.size(),
                 world.size() == 1 ? "rank" : "ranks", report.device, report.dtype, report.runs,
                 report.recompute ? ", backward with recomputation" : "", LayerBenchHead());
    }
    report.cases.push_back(job.Make<LayerBench>(options, bench, job.device(), job.mesh().cp()).Run(job));
    if (!root) continue;
    fmt::print("{}", LayerBenchRow(report.cases.back()));
    std::fflush(stdout);
  }
  if (root && !options.sizes.json.empty()) WriteBenchReport(options.sizes.json, report);
  CheckSelections(report.cases);
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace

std::function<int()> AddBenchLayer(CLI::App& app) {
  const auto options = std::make_shared<LayerBenchOptions>();
  options->sizes.gpu_tokens = 131072;
  AddBenchSizes(app, &options->sizes);
  app.add_option("--layout", options->layouts, "HEAD_TAIL (default), CONTIGUOUS or both")
      ->delimiter(',')
      ->transform(OneOf<LayoutKind>({{"HEAD_TAIL", LayoutKind::kHeadTail}, {"CONTIGUOUS", LayoutKind::kContiguous}}))
      ->type_name("LAYOUT,...");
  app.add_option("--selected-exchange", options->exchanges, "GATHER (default), FETCH or both")
      ->delimiter(',')
      ->transform(OneOf<SelectedExchange>({{"GATHER", SelectedExchange::kGather}, {"FETCH", SelectedExchange::kFetch}}))
      ->type_name("EXCHANGE,...");
  app.add_option("--transfer-processors", options->transfer_processors,
                 "Multiprocessors of a GPU that attention leaves to transfers")
      ->transform(WholeNumber(0, 1024))
      ->type_name("N")
      ->capture_default_str();
  app.add_flag("--recompute", options->recompute, "The backward makes the forward again first");
  app.add_flag("--share-gpu", options->share_gpu, "Several ranks may use one GPU: for tests");
  app.footer(R"(
Random values that depend on the place in the sequence alone: the hash of the selection in the JSON is equal whatever the
ranks; of layouts and exchanges that differ the command fails.

Examples:
  mpirun -np 4 longspan bench layer --tokens 131072 --layout HEAD_TAIL,CONTIGUOUS --selected-exchange GATHER,FETCH
  mpirun -np 8 longspan bench layer --tokens 1048576 --recompute --runs 3 --json layer.json)");
  return [options] { return RunBenchLayer(*options); };
}

}  // namespace longspan
