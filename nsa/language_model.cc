#include "nsa/language_model.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "nsa/configuration.h"
#include "nsa/status.h"
#include "parallel/comm/local_comm.h"
#include "runtime/files/safetensors.h"

namespace longspan {
namespace {

void CheckModel(const NSAModelConfig& c) {
  RequireAtLeast("vocabulary", c.vocabulary, 1);
  RequireAtLeast("layers", c.layers, 1);
  RequireAtLeast("hidden", c.hidden, 1);
  RequireAtLeast("ffn", c.ffn, 1);
  const NSAConfig& attention = c.attention;
  if (c.sequence_length < attention.block_length || c.sequence_length % attention.block_stride != 0) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT,
           "sequence_length: expected a multiple of block_stride = {}, at least block_length = {}, found {}",
           attention.block_stride, attention.block_length, c.sequence_length);
  }
  if (attention.rope_theta == 0) Refuse(NSA_ERROR_INVALID_ARGUMENT, "attention.rope_theta: expected a number above 0");
  const float scale = nsa_create_default_config(attention.head_dim, 1).scaling_factor;
  if (attention.scaling_factor != scale) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "attention.scaling_factor: expected 1/sqrt(head_dim) = {}, found {}", scale,
           attention.scaling_factor);
  }
  const auto within = [](const char* name, double value, double first, double end) {
    if (!(value >= first && value < end)) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}: expected a number in [{},{}), found {}", name, first, end, value);
    }
  };
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  within("tied_head", c.tied_head, 0, 2);
  within("beta1", c.beta1, 0, 1);
  within("beta2", c.beta2, 0, 1);
  within("epsilon", c.epsilon, 0, kInfinity);
  within("weight_decay", c.weight_decay, 0, kInfinity);
  within("clip_norm", c.clip_norm, 0, kInfinity);
}

// `attention` has been checked.
SessionConfig SessionOf(const NSAModelConfig& c, const NsaConfig& nsa) {
  SessionConfig session;
  ModelConfig& model = session.model;
  model.layers = c.layers;
  model.hidden = c.hidden;
  model.heads = c.attention.num_heads;
  model.kv_heads = c.attention.num_groups;
  model.key_width = c.attention.head_dim;
  model.value_width = ValueWidth(c.attention);
  model.ffn = c.ffn;
  model.vocab = c.vocabulary;
  model.tied_head = c.tied_head == 1;
  model.nsa = nsa;
  model.rope.theta = c.attention.rope_theta;
  session.sequence_length = c.sequence_length;
  return session;
}

}  // namespace

LanguageModel::LanguageModel(const NSAModelConfig& config) : vocabulary_(config.vocabulary) {
  NSAConfig attention = config.attention;
  attention.max_length = std::max(config.sequence_length, 1);
  attention.max_batch = 1;
  Checked(attention);
  CheckModel(config);
  nsa_ = NsaOf(attention);
  device_ = FindDevice(attention);
  alone_ = MakeLocalCommunicator(*device_);
  const SessionConfig session = SessionOf(config, nsa_);
  config_ = session.model;
  session_ = std::make_unique<Session>(session, *device_, *alone_, TypeOf(attention.dtype));
  const Context& context = session_->context();
  optimizer_ = std::make_unique<Optimizer>(Optimizer::Args{.device = *device_,
                                                           .ops = session_->ops(),
                                                           .compute = session_->compute(),
                                                           .comm = session_->comm(),
                                                           .world = *alone_,
                                                           .params = session_->model().params(),
                                                           .config = {.beta1 = config.beta1,
                                                                      .beta2 = config.beta2,
                                                                      .eps = config.epsilon,
                                                                      .weight_decay = config.weight_decay,
                                                                      .clip_norm = config.clip_norm}});
  Arena& arena = session_->arena();
  optimizer_->Reserve(arena, context.dtype, context.gradient_dtype);
  arena.Reserve(&logits_, MemoryUse::kWorkspace, "logits", context.dtype, {length(), vocabulary_});
  arena.Reserve(&loss_sum_, MemoryUse::kWorkspace, "loss_sum", DType::kF64, {1});
  session_->Start(config.seed);
  optimizer_->Start(config.seed);
  session_->compute().Synchronize();
}

LanguageModel& LanguageModel::Of(const NSAModel* model) {
  Required(model, "model", "an NSAModel");
  if (model->impl == nullptr) Refuse(NSA_ERROR_NOT_INITIALIZED, "model: expected a model that nsa_model_init made");
  return *static_cast<LanguageModel*>(model->impl);
}

void LanguageModel::CheckTokens(const int32_t* tokens, const int32_t* targets, int64_t batch) const {
  if (batch < 1) Refuse(NSA_ERROR_INVALID_ARGUMENT, "batch: expected 1 or more, found {}", batch);
  const auto check = [&](const char* name, const int32_t* values, int32_t least) {
    Required(values, name, "host memory");
    for (int64_t i = 0; i < batch * length(); ++i) {
      if (values[i] < least || values[i] >= vocabulary_) {
        Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}[{},{}]: expected {} to {}, found {}", name, i / length(), i % length(),
               least, vocabulary_ - 1, values[i]);
      }
    }
  };
  check("tokens", tokens, 0);
  if (targets != nullptr) check("targets", targets, -1);
}

void LanguageModel::LoadSequence(const int32_t* tokens, const int32_t* targets, double loss_scale) {
  Sequence sequence(length());
  std::copy_n(tokens, length(), sequence.tokens.begin());
  if (targets) {
    std::copy_n(targets, length(), sequence.targets.begin());
  } else {
    std::fill(sequence.targets.begin(), sequence.targets.end(), -1);
  }
  Batch batch;
  CutSequence(sequence, session_->layout(), 0, nsa_, &batch);
  session_->Load(batch, loss_scale);
}

void LanguageModel::Logits(const int32_t* tokens, int64_t batch, float* logits) {
  CheckTokens(tokens, nullptr, batch);
  Required(logits, "logits", "host memory");
  const Context& context = session_->context();
  for (int64_t i = 0; i < batch; ++i) {
    LoadSequence(tokens + i * length(), nullptr, 0);
    session_->model().Forward(session_->inputs());
    session_->model().Logits(logits_);
    HostCopy(context.device, context.compute, logits_, HostView(logits + i * logits_.size(), logits_.shape));
  }
}

double LanguageModel::Loss(const int32_t* tokens, const int32_t* targets, int64_t batch, bool backward) {
  Required(targets, "targets", "host memory");
  CheckTokens(tokens, targets, batch);
  const auto labels = batch * length() - std::count(targets, targets + batch * length(), -1);
  const double scale = labels > 0 ? 1 / static_cast<double>(labels) : 0;
  Ops& ops = session_->ops();
  ops.rows->Zero(session_->compute(), loss_sum_);
  for (int64_t i = 0; i < batch; ++i) {
    LoadSequence(tokens + i * length(), targets + i * length(), scale);
    if (backward) {
      session_->model().ForwardBackward(session_->inputs());
    } else {
      session_->model().Forward(session_->inputs());
    }
    ops.train->AddSum(session_->compute(), session_->model().token_loss(), loss_sum_);
    session_->compute().Synchronize();  // before the next sequence is loaded
  }
  return scale * session_->ToHost<double>(loss_sum_)[0];
}

double LanguageModel::Step(double learning_rate) {
  if (!std::isfinite(learning_rate) || learning_rate < 0) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "learning_rate: expected 0 or a number above it, found {}", learning_rate);
  }
  optimizer_->Reduce(0, session_->model().params().size());
  optimizer_->FinishReduce();
  optimizer_->Step(updates_ + 1, learning_rate);
  const double norm = std::sqrt(session_->ToHost<double>(optimizer_->sums())[0]);
  if (std::isfinite(norm)) ++updates_;
  return norm;
}

const Param& LanguageModel::At(int64_t number) {
  const int64_t count = std::ssize(params());
  if (number < 0 || number >= count) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "number: expected a weight in [0,{}), found {}", count, number);
  }
  return *params()[number];
}

void LanguageModel::Get(const Tensor& from, float* values) {
  Required(values, "values", "host memory");
  HostCopy(*device_, session_->compute(), from, HostView(values, from.shape));
}

void LanguageModel::Set(const Param& param, const Tensor& values) {
  // One rank owns the state of all, in order.
  for (const Optimizer::State& state : optimizer_->OwnState()) {
    if (state.name == param.name) HostCopy(*device_, session_->compute(), values, state.weight);
  }
  optimizer_->SpreadWeights();
  session_->compute().Synchronize();
}

void LanguageModel::Save(const std::string& path) {
  std::vector<std::vector<float>> values;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const Optimizer::State& state : optimizer_->OwnState()) {
    values.push_back(session_->ToHost<float>(state.weight));
    tensors.emplace_back(state.name, HostView(values.back().data(), state.weight.shape));
  }
  WriteSafetensors(path, tensors);
}

void LanguageModel::Load(const std::string& path) {
  const SafetensorsFile file = SafetensorsFile::Open(path);
  std::vector<Tensor> values;
  const std::vector<Optimizer::State> states = optimizer_->OwnState();
  for (const Optimizer::State& state : states) {
    if (!file.Has(state.name)) Refuse(NSA_ERROR_FILE, "{}: expected every weight, missing {}", path, state.name);
    values.push_back(FloatsOf(file, state.name, state.weight.shape));
  }
  for (size_t i = 0; i < states.size(); ++i) HostCopy(*device_, session_->compute(), values[i], states[i].weight);
  optimizer_->SpreadWeights();
  session_->compute().Synchronize();
}

}  // namespace longspan
