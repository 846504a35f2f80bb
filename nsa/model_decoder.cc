#include "nsa/model_decoder.h"

#include <algorithm>
#include <vector>

#include "nsa/status.h"
#include "runtime/error.h"

namespace longspan {
namespace {

int64_t AtLeastOne(const char* name, int64_t value) {
  RequireAtLeast(name, value, 1);
  return value;
}

}  // namespace

ModelDecoder::ModelDecoder(LanguageModel& model, int64_t sequences, int64_t length)
    : vocabulary_(model.config().vocab),
      sequences_(AtLeastOne("sequences", sequences)),
      length_(AtLeastOne("length", length)),
      decoder_(model.context().device,
               {.model = model.config(), .dtype = model.context().dtype, .sequences = sequences, .length = length}) {
  try {
    decoder_.Start();
  } catch (const Error& error) {
    throw StatusError(NSA_ERROR_OUT_OF_MEMORY, error.what());
  }
  const Context& context = model.context();
  context.compute.Synchronize();
  context.device.Copy(decoder_.stream(), decoder_.params().weights(), model.weights());
  decoder_.stream().Synchronize();
}

ModelDecoder& ModelDecoder::Of(const NSADecoder* decoder) {
  Required(decoder, "decoder", "an NSADecoder");
  if (decoder->impl == nullptr) {
    Refuse(NSA_ERROR_NOT_INITIALIZED, "decoder: expected a decoder that nsa_decoder_init made");
  }
  return *static_cast<ModelDecoder*>(decoder->impl);
}

int64_t ModelDecoder::Checked(int64_t sequence) const {
  if (sequence < 0 || sequence >= sequences_) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "sequence: expected one in [0,{}), found {}", sequences_, sequence);
  }
  return sequence;
}

void ModelDecoder::CheckTokens(int64_t sequence, const int32_t* tokens, int64_t first, int64_t count) const {
  if (decoder_.length(sequence) + count > length_) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "sequence {}: expected at most {} tokens, found {} and {} more", sequence,
           length_, decoder_.length(sequence), count);
  }
  for (int64_t i = first; i < first + count; ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocabulary_) continue;
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "tokens[{}]: expected 0 to {}, found {}", i, vocabulary_ - 1, tokens[i]);
  }
}

void ModelDecoder::Append(int64_t sequence, const int32_t* tokens, int64_t count, float* logits) {
  Checked(sequence);
  Required(tokens, "tokens", "host memory");
  RequireAtLeast("count", count, 1);
  CheckTokens(sequence, tokens, 0, count);
  const Decoder::Entry entry = {sequence, {tokens, static_cast<size_t>(count)}};
  const std::vector<std::vector<float>> found = decoder_.Append({&entry, 1});
  if (logits) std::copy(found[0].begin(), found[0].end(), logits);
}

void ModelDecoder::Step(const int32_t* tokens, float* logits) {
  Required(tokens, "tokens", "host memory");
  Required(logits, "logits", "host memory");
  std::vector<Decoder::Entry> entries;
  for (int64_t i = 0; i < sequences_; ++i) {
    CheckTokens(i, tokens, i, 1);
    entries.push_back({i, {tokens + i, 1}});
  }
  for (const std::vector<float>& found : decoder_.Append(entries)) {
    logits = std::copy(found.begin(), found.end(), logits);
  }
}

}  // namespace longspan
