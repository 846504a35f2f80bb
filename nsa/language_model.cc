#include "nsa/language_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include "model/interchange/hugging_face.h"
#include "nsa/configuration.h"
#include "nsa/status.h"
#include "parallel/comm/local_comm.h"
#include "runtime/files/safetensors.h"

namespace longspan {
namespace {

constexpr int64_t kMostByDefault = 4096;  // tokens of a sequence, of a model that is opened

void CheckNetwork(const NSAModelConfig& c) {
  RequireWithin("vocabulary", c.vocabulary, 1, kWidestRow);
  RequireAtLeast("layers", c.layers, 1);
  RequireWithin("hidden", c.hidden, 1, kWidestRow);
  RequireWithin("ffn", c.ffn, 1, kWidestRow);
  NSAConfig attention = c.attention;
  attention.max_length = std::max(c.sequence_length, 1);
  attention.max_batch = 1;
  Checked(attention);
  if (attention.rope_theta == 0) Refuse(NSA_ERROR_INVALID_ARGUMENT, "attention.rope_theta: expected a number above 0");
  const float scale = nsa_create_default_config(attention.head_dim, 1).scaling_factor;
  if (attention.scaling_factor != scale) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "attention.scaling_factor: expected 1/sqrt(head_dim) = {}, found {}", scale,
           attention.scaling_factor);
  }
  RequireWithin("tied_head", c.tied_head, 0, 1);
}

// What does not depend on the network but for `nsa`.
void CheckUse(const NSAModelConfig& c, const NsaConfig& nsa) {
  CheckPlace(c.attention);
  if (c.sequence_length < nsa.block || c.sequence_length % nsa.stride != 0) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT,
           "sequence_length: expected a multiple of block_stride = {}, at least block_length = {}, found {}",
           nsa.stride, nsa.block, c.sequence_length);
  }
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  RequireInRange("beta1", c.beta1, 0, 1);
  RequireInRange("beta2", c.beta2, 0, 1);
  RequireInRange("epsilon", c.epsilon, 0, kInfinity);
  RequireInRange("weight_decay", c.weight_decay, 0, kInfinity);
  RequireInRange("clip_norm", c.clip_norm, 0, kInfinity);
}

// `c` has been checked.
ModelConfig NetworkOf(const NSAModelConfig& c) {
  ModelConfig model;
  model.layers = c.layers;
  model.hidden = c.hidden;
  model.heads = c.attention.num_heads;
  model.kv_heads = c.attention.num_groups;
  model.key_width = c.attention.head_dim;
  model.value_width = ValueWidth(c.attention);
  model.ffn = c.ffn;
  model.vocab = c.vocabulary;
  model.tied_head = c.tied_head == 1;
  model.nsa = NsaOf(c.attention);
  model.rope.theta = c.attention.rope_theta;
  return model;
}

HuggingFaceModel ReadNetwork(const std::string& folder) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(folder + "/config.json", none)) {
    Refuse(NSA_ERROR_FILE,
           "{}: expected a folder with config.json and model.safetensors, which `longspan export` makes of a run or "
           "checkpoint",
           folder);
  }
  return ReadHuggingFaceConfig(folder);
}

}  // namespace

std::unique_ptr<LanguageModel> LanguageModel::Draw(const NSAModelConfig& config) {
  CheckNetwork(config);
  const ModelConfig network = NetworkOf(config);
  CheckUse(config, network.nsa);
  std::unique_ptr<LanguageModel> model(new LanguageModel(network, config));
  model->Start(config.seed);
  return model;
}

std::unique_ptr<LanguageModel> LanguageModel::Open(const std::string& folder, NSAModelConfig config) {
  const HuggingFaceModel found = ReadNetwork(folder);
  const HuggingFaceTensors tensors(folder);
  tensors.RequireSizes(found.model);
  if (config.sequence_length == 0) {
    const int64_t most = kMostByDefault / found.model.nsa.stride * found.model.nsa.stride;
    config.sequence_length = static_cast<int32_t>(std::min(found.positions, most));
  }
  CheckUse(config, found.model.nsa);
  std::unique_ptr<LanguageModel> model(new LanguageModel(found.model, config));
  std::map<std::string, Shape> shapes;
  for (const auto& param : model->params()) shapes[param->name] = param->shape;
  tensors.RequireJust(shapes);
  model->Start(config.seed);
  std::vector<float> values;
  model->SetAll([&](const Optimizer::State& state) {
    values = tensors.Read(state.name, state.weight.shape);
    return HostView(values.data(), state.weight.shape);
  });
  return model;
}

LanguageModel::LanguageModel(const ModelConfig& network, const NSAModelConfig& config)
    : config_(network), device_(FindDevice(config.attention)), alone_(MakeLocalCommunicator(*device_)) {
  SessionConfig session;
  session.model = network;
  session.sequence_length = config.sequence_length;
  session_ = std::make_unique<Session>(session, *device_, *alone_, TypeOf(config.attention.dtype));
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
  arena.Reserve(&logits_, MemoryUse::kWorkspace, "logits", context.dtype, {length(), config_.vocab});
  arena.Reserve(&loss_sum_, MemoryUse::kWorkspace, "loss_sum", DType::kF64, {1});
}

void LanguageModel::Start(uint64_t seed) {
  session_->Start(seed);
  optimizer_->Start(seed);
  session_->compute().Synchronize();
}

LanguageModel& LanguageModel::Of(const NSAModel* model) {
  Required(model, "model", "an NSAModel");
  if (model->impl == nullptr)
    Refuse(NSA_ERROR_NOT_INITIALIZED, "model: expected a model that nsa_model_init or nsa_model_open made");
  return *static_cast<LanguageModel*>(model->impl);
}

void LanguageModel::CheckTokens(const int32_t* tokens, const int32_t* targets, int64_t batch) const {
  if (batch < 1) Refuse(NSA_ERROR_INVALID_ARGUMENT, "batch: expected 1 or more, found {}", batch);
  const auto check = [&](const char* name, const int32_t* values, int32_t least) {
    Required(values, name, "host memory");
    for (int64_t i = 0; i < batch * length(); ++i) {
      if (values[i] < least || values[i] >= config_.vocab) {
        Refuse(NSA_ERROR_INVALID_ARGUMENT, "{}[{},{}]: expected {} to {}, found {}", name, i / length(), i % length(),
               least, config_.vocab - 1, values[i]);
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
  CutSequence(sequence, session_->layout(), 0, config_.nsa, &batch);
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
  for (const Optimizer::State& state : optimizer_->OwnState()) {  // all of them, before one changes
    if (!file.Has(state.name)) Refuse(NSA_ERROR_FILE, "{}: expected every weight, missing {}", path, state.name);
    FloatsOf(file, state.name, state.weight.shape);
  }
  SetAll([&](const Optimizer::State& state) { return FloatsOf(file, state.name, state.weight.shape); });
}

template <typename F>
void LanguageModel::SetAll(const F& values) {
  for (const Optimizer::State& state : optimizer_->OwnState()) {
    HostCopy(*device_, session_->compute(), values(state), state.weight);
  }
  optimizer_->SpreadWeights();
  session_->compute().Synchronize();
}

}  // namespace longspan
