// What nsa_model_init and nsa_model_open make (nsa/model.h): a session of one rank, its optimizer, and calls in whole
// batches.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/network/session.h"
#include "model/training/optimizer.h"
#include "nsa/model.h"
#include "parallel/comm/comm.h"

namespace longspan {

class LanguageModel {
 public:
  // Both check and allocate; the weights are drawn, or the folder's.
  static std::unique_ptr<LanguageModel> Draw(const NSAModelConfig& config);
  static std::unique_ptr<LanguageModel> Open(const std::string& folder, NSAModelConfig config);
  LanguageModel(const LanguageModel&) = delete;
  LanguageModel& operator=(const LanguageModel&) = delete;

  static LanguageModel& Of(const NSAModel* model);  // refuses null and what is not initialised

  void Logits(const int32_t* tokens, int64_t batch, float* logits);
  double Loss(const int32_t* tokens, const int32_t* targets, int64_t batch, bool backward);
  double Step(double learning_rate);  // the gradient's norm

  const std::vector<std::unique_ptr<Param>>& params() { return session_->model().params().params(); }
  const Param& At(int64_t number);  // refuses numbers out of range
  void Get(const Tensor& from, float* values);
  void Set(const Param& param, const Tensor& values);  // of host memory
  const ModelConfig& config() const { return config_; }
  int64_t length() const { return session_->layout().sequence(); }
  const Context& context() const { return session_->context(); }
  const Tensor& weights() { return session_->model().params().weights(); }  // of all, in the type of the computation
  void Save(const std::string& path);
  void Load(const std::string& path);

 private:
  // Plans the memory, for Start to allocate. `config` has been checked; what the network is, `network` says.
  LanguageModel(const ModelConfig& network, const NSAModelConfig& config);
  void Start(uint64_t seed);
  template <typename F>
  void SetAll(const F& values);  // Tensor values(state), of host memory
  void CheckTokens(const int32_t* tokens, const int32_t* targets, int64_t batch) const;
  void LoadSequence(const int32_t* tokens, const int32_t* targets, double loss_scale);

  const ModelConfig config_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Communicator> alone_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Optimizer> optimizer_;
  Tensor logits_;    // [S,X]
  Tensor loss_sum_;  // [1] F64
  int64_t updates_ = 0;
};

}  // namespace longspan
