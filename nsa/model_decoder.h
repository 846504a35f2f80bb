// What nsa_decoder_init makes (nsa/model.h): a decoder of a language model, its arguments checked.
#pragma once

#include <cstdint>

#include "model/decode/decoder.h"
#include "nsa/language_model.h"

namespace longspan {

class ModelDecoder {
 public:
  // Checks, allocates, copies the weights. The model outlives this.
  ModelDecoder(LanguageModel& model, int64_t sequences, int64_t length);
  static ModelDecoder& Of(const NSADecoder* decoder);  // refuses null and what is not initialised

  void Append(int64_t sequence, const int32_t* tokens, int64_t count, float* logits);  // [X], may be null
  void Step(const int32_t* tokens, float* logits);                                     // [sequences], [sequences,X]
  // counts tokens each, of sequences that may be null: 0, 1, ..; logits [T,X] may be null.
  void Extend(int64_t count, const int32_t* sequences, const int32_t* counts, const int32_t* tokens, float* logits);
  void Truncate(int64_t sequence, int64_t length);
  void Clear(int64_t sequence) { decoder_.Clear(Checked(sequence)); }
  int64_t length(int64_t sequence) const { return decoder_.length(Checked(sequence)); }

 private:
  int64_t Checked(int64_t sequence) const;  // refuses numbers out of range
  // Refuses tokens[first ..] out of range, and more than there is room for in `sequence`.
  void CheckTokens(int64_t sequence, const int32_t* tokens, int64_t first, int64_t count) const;

  const int64_t vocabulary_, sequences_, length_;
  Decoder decoder_;
};

}  // namespace longspan
