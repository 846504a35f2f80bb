// The C interface to whole models (nsa/model.h): arguments checked, errors made a status.
#include "nsa/model.h"

#include "nsa/language_model.h"
#include "nsa/model_decoder.h"
#include "nsa/status.h"

namespace {

using namespace longspan;

int LossOf(const char* call, NSAModel* model, const int32_t* tokens, const int32_t* targets, int32_t batch,
           bool backward, double* loss) {
  return Guard(call, [&] {
    LanguageModel& found = LanguageModel::Of(model);
    Required(loss, "loss", "a place for it");
    *loss = found.Loss(tokens, targets, batch, backward);
  });
}

}  // namespace

NSAModelConfig nsa_model_default_config(int32_t vocabulary, int32_t layers, int32_t hidden, int32_t heads) {
  NSAModelConfig config = {};
  config.vocabulary = vocabulary;
  config.layers = layers;
  config.hidden = hidden;
  config.ffn = (hidden * 8 / 3 + 7) / 8 * 8;
  config.sequence_length = 1024;
  config.tied_head = 1;
  config.attention = nsa_create_default_config(heads > 0 ? hidden / heads : 0, heads);
  config.attention.rope_theta = 10000;
  config.seed = 1;
  config.beta1 = 0.9F;
  config.beta2 = 0.95F;
  config.epsilon = 1e-8F;
  config.weight_decay = 0.1F;
  config.clip_norm = 1;
  return config;
}

int nsa_model_init(NSAModel* model, const NSAModelConfig* config) {
  return Guard("nsa_model_init", [&] {
    Required(model, "model", "an NSAModel")->impl = nullptr;
    Required(config, "config", "an NSAModelConfig");
    const std::lock_guard lock(SetupMutex());
    model->impl = LanguageModel::Draw(*config).release();
  });
}

int nsa_model_open(NSAModel* model, const char* folder, const NSAModelConfig* config) {
  return Guard("nsa_model_open", [&] {
    Required(model, "model", "an NSAModel")->impl = nullptr;
    Required(folder, "folder", "a folder's path");
    NSAModelConfig use = nsa_model_default_config(1, 1, 2, 1);  // of which sizes are not read
    use.sequence_length = 0;
    if (config != nullptr) use = *config;
    const std::lock_guard lock(SetupMutex());
    model->impl = LanguageModel::Open(folder, use).release();
  });
}

int32_t nsa_model_vocabulary(const NSAModel* model) {
  int32_t vocabulary = 0;
  Guard("nsa_model_vocabulary", [&] { vocabulary = static_cast<int32_t>(LanguageModel::Of(model).config().vocab); });
  return vocabulary;
}

int32_t nsa_model_sequence_length(const NSAModel* model) {
  int32_t length = 0;
  Guard("nsa_model_sequence_length", [&] { length = static_cast<int32_t>(LanguageModel::Of(model).length()); });
  return length;
}

void nsa_model_free(NSAModel* model) {
  if (model == nullptr || model->impl == nullptr) return;
  const std::lock_guard lock(SetupMutex());
  delete static_cast<LanguageModel*>(model->impl);
  model->impl = nullptr;
}

int nsa_model_logits(NSAModel* model, const int32_t* tokens, int32_t batch, float* logits) {
  return Guard("nsa_model_logits", [&] { LanguageModel::Of(model).Logits(tokens, batch, logits); });
}

int nsa_model_loss(NSAModel* model, const int32_t* tokens, const int32_t* targets, int32_t batch, double* loss) {
  return LossOf("nsa_model_loss", model, tokens, targets, batch, false, loss);
}

int nsa_model_backward(NSAModel* model, const int32_t* tokens, const int32_t* targets, int32_t batch, double* loss) {
  return LossOf("nsa_model_backward", model, tokens, targets, batch, true, loss);
}

int nsa_model_step(NSAModel* model, double learning_rate, double* norm) {
  return Guard("nsa_model_step", [&] {
    const double found = LanguageModel::Of(model).Step(learning_rate);
    if (norm != nullptr) *norm = found;
  });
}

int32_t nsa_model_weight_count(const NSAModel* model) {
  int32_t count = 0;
  Guard("nsa_model_weight_count", [&] { count = static_cast<int32_t>(LanguageModel::Of(model).params().size()); });
  return count;
}

int nsa_model_weight(const NSAModel* model, int32_t number, NSAWeight* weight) {
  return Guard("nsa_model_weight", [&] {
    const Param& param = LanguageModel::Of(model).At(number);
    *Required(weight, "weight", "an NSAWeight") = {param.name.c_str(), param.shape.rank(), {}};
    for (int i = 0; i < param.shape.rank(); ++i) weight->shape[i] = param.shape[i];
  });
}

int nsa_model_get_weight(NSAModel* model, int32_t number, float* values) {
  return Guard("nsa_model_get_weight", [&] {
    LanguageModel& found = LanguageModel::Of(model);
    found.Get(found.At(number).weight, values);
  });
}

int nsa_model_get_gradient(NSAModel* model, int32_t number, float* values) {
  return Guard("nsa_model_get_gradient", [&] {
    LanguageModel& found = LanguageModel::Of(model);
    found.Get(found.At(number).gradient, values);
  });
}

int nsa_model_set_weight(NSAModel* model, int32_t number, const float* values) {
  return Guard("nsa_model_set_weight", [&] {
    LanguageModel& found = LanguageModel::Of(model);
    const Param& param = found.At(number);
    found.Set(param, HostView(Required(values, "values", "host memory"), param.shape));
  });
}

int nsa_model_save(NSAModel* model, const char* path) {
  return Guard("nsa_model_save", [&] { LanguageModel::Of(model).Save(Required(path, "path", "a file's")); });
}

int nsa_model_load(NSAModel* model, const char* path) {
  return Guard("nsa_model_load", [&] { LanguageModel::Of(model).Load(Required(path, "path", "a file's")); });
}

int nsa_decoder_init(NSADecoder* decoder, NSAModel* model, int32_t sequences, int32_t length) {
  return Guard("nsa_decoder_init", [&] {
    Required(decoder, "decoder", "an NSADecoder")->impl = nullptr;
    LanguageModel& found = LanguageModel::Of(model);
    const std::lock_guard lock(SetupMutex());
    decoder->impl = new ModelDecoder(found, sequences, length);
  });
}

void nsa_decoder_free(NSADecoder* decoder) {
  if (decoder == nullptr || decoder->impl == nullptr) return;
  const std::lock_guard lock(SetupMutex());
  delete static_cast<ModelDecoder*>(decoder->impl);
  decoder->impl = nullptr;
}

int nsa_decoder_append(NSADecoder* decoder, int32_t sequence, const int32_t* tokens, int32_t count, float* logits) {
  return Guard("nsa_decoder_append", [&] { ModelDecoder::Of(decoder).Append(sequence, tokens, count, logits); });
}

int nsa_decoder_step(NSADecoder* decoder, const int32_t* tokens, float* logits) {
  return Guard("nsa_decoder_step", [&] { ModelDecoder::Of(decoder).Step(tokens, logits); });
}

int nsa_decoder_extend(NSADecoder* decoder, int32_t num_sequences, const int32_t* sequences, const int32_t* counts,
                       const int32_t* tokens, float* logits) {
  return Guard("nsa_decoder_extend",
               [&] { ModelDecoder::Of(decoder).Extend(num_sequences, sequences, counts, tokens, logits); });
}

int nsa_decoder_truncate(NSADecoder* decoder, int32_t sequence, int32_t length) {
  return Guard("nsa_decoder_truncate", [&] { ModelDecoder::Of(decoder).Truncate(sequence, length); });
}

int nsa_decoder_clear(NSADecoder* decoder, int32_t sequence) {
  return Guard("nsa_decoder_clear", [&] { ModelDecoder::Of(decoder).Clear(sequence); });
}

int32_t nsa_decoder_length(const NSADecoder* decoder, int32_t sequence) {
  int32_t length = -1;
  Guard("nsa_decoder_length", [&] { length = static_cast<int32_t>(ModelDecoder::Of(decoder).length(sequence)); });
  return length;
}
