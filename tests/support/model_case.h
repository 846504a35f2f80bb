// A small random model on one cp group: configuration, session and batch, for model tests.
#pragma once

#include <memory>
#include <vector>

#include "launch/data/random_source.h"
#include "launch/session.h"

namespace longspan {

// Two layers, odd widths, K != V; block sizes small enough that a short sequence meets every branch.
inline RunConfig SmallConfig() {
  RunConfig config;
  config.model.layers = 2;
  config.model.hidden = 20;
  config.model.heads = 4;
  config.model.kv_heads = 2;
  config.model.key_width = 6;
  config.model.value_width = 5;
  config.model.ffn = 28;
  config.model.vocab = 17;
  config.model.nsa.block = 8;
  config.model.nsa.stride = 4;
  config.model.nsa.select_block = 8;
  config.model.nsa.select = 4;
  config.model.nsa.init = 1;
  config.model.nsa.local = 2;
  config.model.nsa.window = 13;
  config.data.sequence_length = 192;
  return config;
}

class ModelCase {
 public:
  ModelCase(const RunConfig& config, Communicator& cp, DType dtype, bool documents = true, int64_t place = 0)
      : session(config, cp, dtype),
        source(config.data.sequence_length, config.model.vocab, config.model.nsa.select_block, documents) {
    session.Start(config.train.seed);
    BatchLoader loader(source, session.layout(), cp.rank(), config.model.nsa, 1);
    loader.Load(place, batch);
    session.Load(batch);
  }

  void ForwardBackward() {
    session.ops().train->Zero(session.compute(), session.model().params().gradients());
    session.model().ForwardBackward(session.inputs(), 1 / static_cast<double>(batch.labels));
    session.compute().Synchronize();
  }
  void Forward() {
    session.model().Forward(session.inputs());
    session.compute().Synchronize();
  }
  // Sum of this rank's token losses / valid tokens of the sequence.
  template <typename T>
  double Loss() {
    double sum = 0;
    const Tensor& loss = session.model().token_loss();
    for (int64_t i = 0; i < loss.size(); ++i) sum += static_cast<double>(loss.As<T>()[i]);
    return sum / static_cast<double>(batch.labels);
  }
  // From now on the selection of the last forward.
  void FreezeSelections(int64_t layers) {
    for (int64_t i = 0; i < layers; ++i) {
      NsaCore* nsa = session.model().attention(i).nsa();
      if (!nsa) continue;
      const Tensor& selected = nsa->selected();
      auto& copy = *frozen.emplace_back(
          std::make_unique<std::vector<int32_t>>(selected.As<int32_t>(), selected.As<int32_t>() + selected.size()));
      nsa->FreezeSelection(HostView(copy.data(), selected.shape));
    }
  }

  Session session;
  RandomSource source;
  Batch batch;
  std::vector<std::unique_ptr<std::vector<int32_t>>> frozen;
};

}  // namespace longspan
