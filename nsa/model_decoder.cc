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
  decoder_.Start();
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

void ModelDecoder::Extend(int64_t count, const int32_t* sequences, const int32_t* counts, const int32_t* tokens,
                          float* logits) {
  RequireAtLeast("num_sequences", count, 1);
  Required(counts, "counts", "the tokens of each sequence");
  Required(tokens, "tokens", "host memory");
  std::vector<Decoder::Entry> entries;
  std::vector<bool> taken(sequences_, false);
  int64_t first = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t sequence = Checked(sequences ? sequences[i] : i);
    if (taken[sequence]) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "sequences[{}]: expected each once, found {} again", i, sequence);
    }
    taken[sequence] = true;
    RequireAtLeast(fmt::format("counts[{}]", i).c_str(), counts[i], 1);
    CheckTokens(sequence, tokens, first, counts[i]);
    entries.push_back({sequence, {tokens + first, static_cast<size_t>(counts[i])}, logits != nullptr});
    first += counts[i];
  }
  const std::vector<std::vector<float>> found = decoder_.Append(entries);
  if (!logits) return;
  for (const std::vector<float>& rows : found) logits = std::copy(rows.begin(), rows.end(), logits);
}

void ModelDecoder::Truncate(int64_t sequence, int64_t length) {
  static_assert(NSA_MAX_TAKEN_BACK == Decoder::kMostTakenBack);
  const int64_t held = decoder_.length(Checked(sequence)), least = decoder_.least(sequence);
  if (length < least || length > held) {
    Refuse(NSA_ERROR_INVALID_ARGUMENT, "length: sequence {} holds {} tokens: expected {} to so many, found {}",
           sequence, held, least, length);
  }
  decoder_.TakeBack(sequence, length);
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
