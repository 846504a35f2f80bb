#include "launch/data/train_tokenizer.h"
#include "runtime/error.h"

namespace longspan {

std::string TrainTokenizer(const TokenizerTraining& /*training*/, const TextSample& /*sample*/) {
  Fail(ExitCode::kUsage,
       "tokenizer train: this program was built without SentencePiece's trainer (libsentencepiece-dev)");
}

}  // namespace longspan
