#include "launch/data/batches.h"

#include "runtime/error.h"

namespace longspan {

BatchLoader::BatchLoader(const SequenceSource& source, const Layout& layout, int cp_index, const NsaConfig& nsa,
                         uint64_t seed)
    : source_(source),
      layout_(layout),
      cp_index_(cp_index),
      nsa_(nsa),
      order_(source.parts(), seed),
      sequence_(layout.sequence()) {
  LS_CHECK(source.length() == layout.sequence(), "batches: sequences of {} tokens, a layout of {}", source.length(),
           layout.sequence());
}

void BatchLoader::LoadSequence(int64_t number, Batch& batch) {
  source_.Fill(number, sequence_.tokens, sequence_.targets, sequence_.doc_start);
  batch.number = number;
  CutSequence(sequence_, layout_, cp_index_, nsa_, &batch);
}

}  // namespace longspan
