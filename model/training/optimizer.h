// AdamW with its state sharded over all ranks (ZeRO-1, arXiv 1910.02054), cut at tensor boundaries.
//
// A step: reduce-scatter of the gradients, so that each rank holds the sums for its own tensors; norm over all; clip;
// AdamW on the own tensors; all-gather of the weights. Gradients are zero afterwards. The reduce-scatter may begin
// behind the backward: Reduce, part by part. A norm or loss that is not finite changes neither weights nor state: the
// devices decide it, all from the same sums.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/config.h"
#include "model/params.h"
#include "parallel/comm/comm.h"

namespace longspan {

// Parameters [first, last) of the table belong to one rank.
struct Shard {
  int64_t first = 0, last = 0;
  int64_t begin = 0, end = 0;  // elements of the flat buffers
};

// Cuts the table in `ranks` runs of whole tensors, as equal as that allows; some may be empty.
std::vector<Shard> CutShards(const ParamTable& params, int ranks);

// What an update may come from: above either of them it is skipped.
struct UpdateLimits {
  double norm = std::numeric_limits<double>::infinity();
  double loss = std::numeric_limits<double>::infinity();  // of the sum over all ranks
};

class Optimizer {
 public:
  struct Args {
    Device& device;
    Ops& ops;
    Stream& compute;
    Stream& comm;
    Communicator& world;  // all ranks, dp x cp
    ParamTable& params;
    OptimizerConfig config;
  };
  explicit Optimizer(const Args& args);  // what it refers to outlives it
  // Weights narrower than their gradients get a master copy of the own tensors.
  void Reserve(Arena& arena, DType dtype, DType gradient_dtype);
  // After Commit: zeroes the moments; masters get the draws that the weights were rounded from.
  void Start(uint64_t seed);
  void ZeroMoments();

  // Starts the reduction of elements [begin,end) of the flat gradients, on the communication stream, once the compute
  // stream has come this far. The parts of a step cover everything once, in the same order on all ranks.
  void Reduce(int64_t begin, int64_t end);
  void FinishReduce();  // the compute stream waits for all parts
  // After all parts were reduced. `update` counts the updates made so far and this one, from 1. `loss_sum` [1] F64 is
  // this rank's part of the loss, or null. Afterwards sums() holds the squared norm of the whole gradient, before
  // clipping, the loss of all ranks, and what the gradient was multiplied with: NaN when the update was skipped.
  void Step(int64_t update, double learning_rate, const Tensor& loss_sum = {}, const UpdateLimits& limits = {});
  const Tensor& sums() const { return sums_; }  // [3] F64

  // What training one parameter continues from, on the device; between two steps only.
  struct State {
    std::string name;
    Tensor weight;  // its master where there is one; the parameter's shape, as m and v
    Tensor m, v;
  };
  // All of it that this rank owns: weights (masters), m and v of its parameters one after another, as the flat buffers
  // have them. Known once reserved.
  using FlatState = std::array<Tensor, 3>;  // [own elements]
  FlatState OwnFlat() const;
  int64_t own_state_bytes() const { return own_state_bytes_; }
  std::vector<State> Cut(const FlatState& flat) const;  // by parameter; OwnFlat or a copy of it, wherever that lies
  std::vector<State> OwnState() const { return Cut(OwnFlat()); }
  // After that was written by all ranks, on the compute stream: the weights everywhere are what it says, rounded.
  void SpreadWeights();

 private:
  const Shard& own() const { return shards_[world_.rank()]; }
  void BeginGather();   // of all ranks' weights, on the communication stream
  void FinishGather();  // the compute stream waits for it
  Tensor OwnPart(const Tensor& flat) const { return flat.Rows(own().begin, own().end - own().begin); }
  // Later work of `second` starts after all work of `first` so far.
  void Order(Stream& first, Stream& second, const char* stall = nullptr);

  Device& device_;
  Ops& ops_;
  Stream& compute_;
  Stream& comm_;
  Communicator& world_;
  ParamTable& params_;
  const OptimizerConfig config_;
  std::vector<Shard> shards_;
  std::vector<int64_t> counts_;  // elements by rank
  Tensor m_, v_, master_;        // [own elements]; no master: null
  Tensor sums_;                  // [3] F64
  int64_t own_state_bytes_ = 0;
  std::unique_ptr<Event> event_;
};

}  // namespace longspan
