#include "launch/commands/attention.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <memory>

#include "kernels/host_copy.h"
#include "launch/commands/attention_case.h"
#include "launch/commands/command.h"
#include "launch/commands/option_values.h"
#include "launch/job/job.h"
#include "launch/job/world.h"
#include "launch/train/selection_file.h"
#include "model/attention/nsa.h"
#include "model/inputs.h"
#include "parallel/exchange/sequence_rows.h"
#include "runtime/rounding.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

DType AtLeastF32(DType type) { return type == DType::kBf16 ? DType::kF32 : type; }

// CPU kernels have F32 and F64: each case is computed in a type wider than its own where there is one. Then a gradient
// that is 0 in exact arithmetic is so in F32, too, and not the noise of one order of sums. A GPU takes a case as it is.
DType ComputeType(const AttentionCase& input, DeviceKind device) {
  if (device == DeviceKind::kCpu) return input.dtype == DType::kBf16 ? DType::kF32 : DType::kF64;
  if (input.dtype == DType::kF64) {
    Fail(ExitCode::kConfig, "{}: device gpu takes cases in BF16 and F32, found F64; use device cpu", input.file.path());
  }
  return input.dtype;
}

// Of whole strides, so that every row of summaries has its tokens; on several ranks of whole chunks.
Layout LayoutOf(const AttentionCase& input, LayoutKind kind, int ranks) {
  const int64_t unit = input.nsa.select_block;
  const int64_t length = RoundUp(Layout::PaddedLength(kind, input.sequence, ranks, unit), input.nsa.stride);
  if (length > std::numeric_limits<int32_t>::max()) {
    Fail(ExitCode::kData, "{}: q: expected at most {} tokens, found {}, {} when padded for {} ranks", input.file.path(),
         std::numeric_limits<int32_t>::max(), input.sequence, length, ranks);
  }
  return Layout(kind, length, ranks, unit);
}

// One rank's part of a run.
class AttentionRun {
 public:
  AttentionRun(const AttentionOptions& options, Device& device, Communicator& cp)
      : input_(ReadAttentionCase(options.input, options.selected)),
        device_(device),
        ops_(MakeOps(device.kind())),
        compute_(device.MakeStream("compute")),
        comm_(device.MakeStream("comm")),
        layout_(LayoutOf(input_, options.layout, cp.size())),
        type_(ComputeType(input_, device.kind())),
        context_{device_, ops_, *compute_, *comm_, cp, layout_, type_, AtLeastF32(type_)},
        core_(context_, input_.sizes, input_.nsa, options.selected_exchange, input_.scale),
        rows_{device_, *compute_, *comm_, cp, layout_, input_.sequence} {
    Reserve();
    arena_.Commit(device_);
    core_.Start();
    Load();
  }

  // Collective; rank 0 writes.
  void Run(const AttentionOptions& options) {
    Compute();
    Write(options.output);
    if (root() && !options.record_selection.empty()) RecordSelection(options.record_selection);
  }

 private:
  struct Weight {
    std::string name;          // in the case
    Tensor *value, *gradient;  // in phi_; the gradient is null without backward
  };

  bool root() const { return context_.cp.rank() == 0; }

  void Compute() {
    core_.LendRows();
    core_.Forward(sequence_);
    if (!d_out_) {
      compute_->Synchronize();
      return;
    }
    core_.Backward(sequence_, d_out_, gradients_);
    core_.ReturnRows(sequence_, gradients_);
    core_.AwaitRows();
    for (size_t i = 0; i < core_.rows().size(); ++i) {
      const KeyRows own = OwnGradients(i);
      if (own.k && own.rotated_k) ops_.dense->Add(*compute_, own.rotated_k, own.k);
    }
    compute_->Synchronize();
    for (const Weight& weight : weights_) context_.cp.AllReduce(*comm_, *weight.gradient, ReduceOp::kSum);
    comm_->Synchronize();
  }

  void Write(const std::string& path) {
    Collect("out", core_.out(), input_.dtype);
    for (int b = 0; b < 3; ++b) {
      const std::string& branch = NsaCore::kBranchNames[b];
      Collect("o_" + branch, core_.branch_out(b), input_.dtype);
      Collect("lse_" + branch, core_.branch_lse(b), AtLeastF32(input_.dtype));
    }
    Collect(kSelected, core_.selected(), DType::kI32);
    if (d_out_) CollectGradients();
    if (root()) WriteSafetensors(path, results_, {{"select_block", std::to_string(input_.nsa.select_block)}});
  }

  void RecordSelection(const std::string& path) const {
    const auto named = [](const auto& result) { return result.first == kSelected; };
    const Tensor selected = std::find_if(results_.begin(), results_.end(), named)->second;
    SelectionWriter writer(input_.nsa.select_block);
    writer.Add(kSelected, {selected.As<int32_t>(), static_cast<size_t>(selected.size())}, selected.shape);
    writer.Write(path);
  }

  KeyRows OwnGradients(size_t i) const { return core_.OwnRows(static_cast<int>(i), gradients_.rows[i]); }

  void Reserve() {
    const auto [heads, groups, key_width, value_width] = input_.sizes;
    const int64_t tokens = layout_.tokens();
    core_.Reserve(arena_, "attention", MemoryUse::kActivations);
    const auto integers = [&](Tensor* slot, const char* name, const Shape& shape) {
      arena_.Reserve(slot, MemoryUse::kActivations, name, DType::kI32, shape);
    };
    integers(&sequence_.doc_start, "doc_start", {layout_.sequence()});
    integers(&sequence_.summary_positions, "summary_positions", {tokens / input_.nsa.stride});
    if (!input_.selected.empty()) integers(&frozen_, kSelected, {tokens, groups, input_.nsa.select});
    if (input_.rope_theta != 0) {
      arena_.Reserve(&rope_.frequency, MemoryUse::kWeights, "frequency", DType::kF64, {key_width / 2});
    }
    const bool backward = input_.file.Has("d_out");
    ReservePhi("phi_k.", &phi_.k, backward ? &phi_.d_k : nullptr);
    ReservePhi("phi_v.", &phi_.v, backward ? &phi_.d_v : nullptr);
    if (!backward) return;
    arena_.Reserve(&d_out_, MemoryUse::kWorkspace, "d_out", context_.dtype, {tokens, heads, value_width});
    core_.ReserveGradients(arena_, &gradients_);
  }

  void ReservePhi(const std::string& prefix, PhiWeights* weights, PhiWeights* gradients) {
    for (size_t i = 0; i < kPhiNames.kSize; ++i) {
      const std::string name = prefix + kPhiNames[i];
      const Tensor found = input_.Find(name);
      if (!found) continue;
      const Weight weight{name, &(*weights)[i], gradients ? &(*gradients)[i] : nullptr};
      arena_.Reserve(weight.value, MemoryUse::kWeights, name, context_.dtype, found.shape);
      if (gradients) {
        arena_.Reserve(weight.gradient, MemoryUse::kGradients, name, context_.gradient_dtype, found.shape);
      }
      weights_.push_back(weight);
    }
  }

  void Load() {
    rows_.Scatter(input_.file.Get("q"), core_.q());
    for (size_t i = 0; i < core_.rows().size(); ++i) {
      const KeyRows& own = core_.rows()[i];
      const std::string branch = NsaCore::kBranchNames[i];
      // A case says itself whether its keys are rotated: branches that share them read the same.
      for (const Tensor& k : {own.k, own.rotated_k}) {
        if (k) rows_.Scatter(input_.file.Get(input_.K(branch)), k);
      }
      rows_.Scatter(input_.file.Get(input_.V(branch)), own.v);
    }
    LoadGates();
    LoadPositions();
    LoadPhi();
    if (frozen_) {
      const Tensor whole = HostView(input_.selected.data(), {input_.sequence, frozen_.dim(1), frozen_.dim(2)});
      rows_.Scatter(whole, frozen_, 0xFF);  // padding chooses nothing: -1
      core_.FreezeSelection(frozen_);
    }
    if (d_out_) rows_.Scatter(input_.file.Get("d_out"), d_out_);
  }

  void LoadGates() {
    if (input_.file.Has("gates")) return rows_.Scatter(input_.file.Get("gates"), core_.gates());
    std::vector<float> ones(core_.gates().size(), 1.0F);
    Transfer(HostView(ones.data(), core_.gates().shape), core_.gates());
  }

  void LoadPositions() {
    // Padding belongs to the last document.
    std::vector<int32_t> doc_start(layout_.sequence(), 0);
    if (const Tensor given = input_.Find("doc_start")) {
      const int32_t* const starts = given.As<int32_t>();
      std::copy_n(starts, input_.sequence, doc_start.begin());
      std::fill(doc_start.begin() + input_.sequence, doc_start.end(), starts[input_.sequence - 1]);
    }
    const std::vector<int32_t> positions = SummaryPositions(layout_, context_.cp.rank(), input_.nsa, doc_start);
    Transfer(HostView(doc_start.data(), sequence_.doc_start.shape), sequence_.doc_start);
    Transfer(HostView(positions.data(), sequence_.summary_positions.shape), sequence_.summary_positions);
  }

  void LoadPhi() {
    for (const Weight& weight : weights_) {
      Transfer(input_.file.Get(weight.name), *weight.value);
      if (weight.gradient) ops_.rows->Zero(*compute_, *weight.gradient);
    }
    core_.SetPhi(phi_);
    if (input_.nsa.compress_rope == CompressRope::kBefore || input_.rope_theta == 0) return;
    const RopeTable table = MakeRopeTable({.theta = input_.rope_theta}, input_.sizes.key_width);
    Transfer(HostView(table.frequency.data(), rope_.frequency.shape), rope_.frequency);
    rope_.factor = table.factor;
    core_.SetSummaryRope(rope_);
  }

  // To or from the device, cast when the types differ. Done when it returns.
  void Transfer(const Tensor& from, const Tensor& to) { HostCopy(device_, *compute_, from, to); }

  void CollectGradients() {
    Collect("d_q", gradients_.d_q, input_.dtype);
    for (size_t i = 0; i < core_.rows().size(); ++i) {
      const KeyRows own = OwnGradients(i);
      const std::string branch = NsaCore::kBranchNames[i];
      Collect("d_" + input_.K(branch), own.projected_k(), input_.dtype);
      Collect("d_" + input_.V(branch), own.v, input_.dtype);
    }
    if (input_.file.Has("gates")) Collect("d_gates", gradients_.d_gates, input_.dtype);
    if (!root()) return;
    for (const Weight& weight : weights_) {
      Transfer(*weight.gradient, Result("d_" + weight.name, input_.dtype, weight.gradient->shape));
    }
  }

  // Collective: rows of the sequence become a result.
  void Collect(const std::string& name, const Tensor& part, DType dtype) {
    Shape shape = part.shape;
    shape[0] = input_.sequence;
    rows_.Gather(part, root() ? Result(name, dtype, shape) : Tensor());
  }

  Tensor Result(const std::string& name, DType dtype, const Shape& shape) {
    const Buffer& memory = memory_.emplace_back(*host_, shape.count() * DTypeSize(dtype), name);
    return results_.emplace_back(name, Tensor(memory.data(), dtype, DeviceKind::kCpu, shape)).second;
  }

  const AttentionCase input_;
  const std::unique_ptr<Device> host_ = MakeCpuDevice();
  Device& device_;
  Ops ops_;
  const std::unique_ptr<Stream> compute_, comm_;
  const Layout layout_;
  const DType type_;  // of the computation
  const Context context_;
  Arena arena_;
  NsaCore core_;
  const SequenceRows rows_;

  SequenceInputs sequence_;
  SummaryRope rope_;
  Tensor frozen_;  // [T,G,N] I32 or null
  Tensor d_out_;   // [T,H,V], null without backward
  AttentionGradients gradients_;
  PhiPair phi_;
  std::vector<Weight> weights_;

  std::vector<Buffer> memory_;                           // of results_
  std::vector<std::pair<std::string, Tensor>> results_;  // rank 0
};

int RunAttention(const AttentionOptions& options) {
  const World world;
  const double begin = WallSeconds();
  Job job(options.device, {.cp = world.size(), .share_gpu = options.share_gpu});
  job.Make<AttentionRun>(options, job.device(), job.mesh().cp()).Run(options);
  if (job.root()) {
    fmt::print("wrote {} (ranks: {}, {}, {:.1f} s)\n", options.output, world.size(), job.device().name(),
               WallSeconds() - begin);
  }
  return static_cast<int>(ExitCode::kOk);
}

std::function<int()> AddAttention(CLI::App& app) {
  const auto options = std::make_shared<AttentionOptions>();
  app.add_option("--case", options->input, "Tensors and parameters, safetensors")->required()->type_name("FILE");
  app.add_option("--out", options->output, "Where the result goes, safetensors")->required()->type_name("FILE");
  app.add_option("--selected", options->selected, "Selection file whose blocks are taken instead of chosen")
      ->type_name("FILE");
  app.add_option("--record-selection", options->record_selection, "Where the chosen blocks go, alone and small")
      ->type_name("FILE");
  app.add_option("--device", options->device, "cpu (default) or gpu")
      ->transform(OneOf<DeviceKind>({{"cpu", DeviceKind::kCpu}, {"gpu", DeviceKind::kGpu}}))
      ->type_name("DEVICE");
  app.add_flag("--share-gpu", options->share_gpu, "Several ranks may use one GPU: for tests");
  app.add_option("--layout", options->layout, "HEAD_TAIL (default) or CONTIGUOUS: how ranks share the sequence")
      ->transform(OneOf<LayoutKind>({{"HEAD_TAIL", LayoutKind::kHeadTail}, {"CONTIGUOUS", LayoutKind::kContiguous}}))
      ->type_name("LAYOUT");
  app.add_option("--selected-exchange", options->selected_exchange,
                 "GATHER (default) or FETCH: how chosen blocks reach a rank")
      ->transform(OneOf<SelectedExchange>({{"GATHER", SelectedExchange::kGather}, {"FETCH", SelectedExchange::kFetch}}))
      ->type_name("EXCHANGE");
  return [options] { return RunAttention(*options); };
}

}  // namespace

extern const Command kAttention = {"attention", "Run the NSA operator on tensors from a file", R"(
The result does not depend on the number of ranks, the layout or the exchange.

Examples:
  longspan attention --case case.safetensors --out result.safetensors
  mpirun -np 4 longspan attention --case case.safetensors --out result.safetensors --selected-exchange FETCH)",
                                   AddAttention};

void RunAttentionCase(const AttentionOptions& options, Device& device, Communicator& cp) {
  AttentionRun(options, device, cp).Run(options);
}

}  // namespace longspan
