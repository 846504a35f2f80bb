#include "model/training/optimizer.h"

#include <algorithm>
#include <utility>

#include "runtime/place.h"

namespace longspan {

std::vector<Shard> CutShards(const ParamTable& params, int ranks) {
  const auto& list = params.params();
  const auto end_of = [&](int64_t i) {
    return i + 1 < static_cast<int64_t>(list.size()) ? list[i + 1]->offset : params.size();
  };
  std::vector<Shard> shards(ranks);
  int64_t next = 0;
  for (int r = 0; r < ranks; ++r) {
    Shard& shard = shards[r];
    shard.first = next;
    shard.begin = r > 0 ? shards[r - 1].end : 0;
    shard.end = shard.begin;
    // A tensor belongs to the rank in whose equal part its middle lies.
    const int64_t limit = params.size() * (r + 1) / ranks;
    while (next < static_cast<int64_t>(list.size()) && (list[next]->offset + end_of(next)) / 2 < limit) {
      shard.end = end_of(next++);
    }
    shard.last = next;
  }
  return shards;
}

Optimizer::Optimizer(const Args& args)
    : device_(args.device),
      ops_(args.ops),
      compute_(args.compute),
      comm_(args.comm),
      world_(args.world),
      params_(args.params),
      config_(args.config),
      shards_(CutShards(args.params, args.world.size())),
      event_(args.device.MakeEvent()) {
  for (const Shard& shard : shards_) counts_.push_back(shard.end - shard.begin);
}

void Optimizer::Reserve(Arena& arena, DType dtype, DType gradient_dtype) {
  const auto state = [&](Tensor* slot, const char* name) {
    arena.Reserve(slot, MemoryUse::kOptimizer, name, gradient_dtype, {counts_[world_.rank()]});
  };
  state(&m_, "adamw.m");
  state(&v_, "adamw.v");
  if (dtype != gradient_dtype) state(&master_, "adamw.master");
  own_state_bytes_ = 3 * counts_[world_.rank()] * DTypeSize(gradient_dtype);
  arena.Reserve(&sums_, MemoryUse::kWorkspace, "step_sums", DType::kF64, {3});
}

void Optimizer::ZeroMoments() {
  device_.FillBytes(compute_, m_, 0);
  device_.FillBytes(compute_, v_, 0);
}

void Optimizer::Start(uint64_t seed) {
  ZeroMoments();
  if (master_) params_.Draw(device_, compute_, seed, own().first, own().last, master_);
}

void Optimizer::Order(Stream& first, Stream& second, const char* stall) {
  first.Record(*event_);
  second.Wait(*event_, stall);
}

void Optimizer::Reduce(int64_t begin, int64_t end) {
  const AtPlace reductions({"reductions"});
  const auto within = [&](const Shard& shard) {  // of the part
    const int64_t first = std::clamp(shard.begin, begin, end);
    return std::pair(first, std::clamp(shard.end, begin, end) - first);
  };
  std::vector<int64_t> counts;
  for (const Shard& shard : shards_) counts.push_back(within(shard).second);
  const auto [first, count] = within(own());
  Order(compute_, comm_);
  world_.ReduceScatter(comm_, params_.gradients().Rows(begin, end - begin), params_.gradients().Rows(first, count),
                       counts);
}

void Optimizer::FinishReduce() {
  const AtPlace reductions({"reductions"});
  Order(comm_, compute_, "stall.gradients");
}

void Optimizer::Step(int64_t update, double learning_rate, const Tensor& loss_sum, const UpdateLimits& limits) {
  const AtPlace optimizer({"optimizer"});
  TrainOps& train = *ops_.train;
  const Tensor squares = sums_.Rows(0, 1), loss = sums_.Rows(1, 1), scale = sums_.Rows(2, 1);
  ops_.rows->Zero(compute_, sums_);
  for (int64_t i = own().first; i < own().last; ++i) {
    train.AddSumOfSquares(compute_, params_.params()[i]->gradient, squares);
  }
  if (loss_sum) device_.Copy(compute_, loss, loss_sum);
  {
    const auto reductions = InStage("reductions");
    Order(compute_, comm_);
    world_.AllReduce(comm_, sums_.Rows(0, 2), ReduceOp::kSum);
    Order(comm_, compute_, "stall.gradient_norm");
  }

  train.ClipScale(compute_, {.sum_of_squares = squares,
                             .loss = loss,
                             .max_norm = config_.clip_norm,
                             .norm_limit = limits.norm,
                             .loss_limit = limits.loss,
                             .scale = scale});
  for (int64_t i = own().first; i < own().last; ++i) {
    const Param& param = *params_.params()[i];
    const int64_t at = param.offset - own().begin;
    const Shape flat{param.size()};
    train.AdamW(compute_, {.weight = param.weight.Reshape(flat),
                           .gradient = param.gradient.Reshape(flat),
                           .m = m_.Rows(at, param.size()),
                           .v = v_.Rows(at, param.size()),
                           .master = master_ ? master_.Rows(at, param.size()) : Tensor(),
                           .grad_scale = scale,
                           .learning_rate = learning_rate,
                           .beta1 = config_.beta1,
                           .beta2 = config_.beta2,
                           .eps = config_.eps,
                           .weight_decay = param.decay ? config_.weight_decay : 0,
                           .step = update});
  }
  BeginGather();
  ops_.rows->Zero(compute_, params_.gradients());  // which nothing sends any more
  FinishGather();
}

void Optimizer::BeginGather() {
  const auto weights = InStage("weights");
  Order(compute_, comm_);
  world_.AllGather(comm_, OwnPart(params_.weights()), params_.weights(), counts_);
}

void Optimizer::FinishGather() {
  const auto weights = InStage("weights");
  Order(comm_, compute_, "stall.weights");
}

Optimizer::FlatState Optimizer::OwnFlat() const { return {master_ ? master_ : OwnPart(params_.weights()), m_, v_}; }

std::vector<Optimizer::State> Optimizer::Cut(const FlatState& flat) const {
  std::vector<State> states;
  for (int64_t i = own().first; i < own().last; ++i) {
    const Param& param = *params_.params()[i];
    const auto part = [&](const Tensor& all) {
      return all.Rows(param.offset - own().begin, param.size()).Reshape(param.shape);
    };
    states.push_back({param.name, part(flat[0]), part(flat[1]), part(flat[2])});
  }
  return states;
}

void Optimizer::SpreadWeights() {
  if (master_ && own().end > own().begin) ops_.rows->Copy(compute_, master_, OwnPart(params_.weights()));
  BeginGather();
  FinishGather();
}

}  // namespace longspan
