// A small random model on one cp group: configuration, session and batch, for model tests.
#pragma once

#include <memory>
#include <vector>

#include "launch/data/batches.h"
#include "launch/data/random_source.h"
#include "model/network/session.h"

namespace longspan {

// Two layers, odd widths, K != V; block sizes small enough that a short sequence meets every branch.
inline SessionConfig SmallConfig() {
  SessionConfig config;
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
  config.sequence_length = 192;
  return config;
}

inline Device& TestCpu() {
  static const auto device = MakeCpuDevice();
  return *device;
}

class ModelCase {
 public:
  // `cp` is over the memory of `on`, which outlives this. `ops` instead of the device's own.
  ModelCase(const SessionConfig& config, Communicator& cp, DType dtype, bool documents = true, Device& on = TestCpu(),
            Ops ops = {})
      : device(on),
        session(config, on, cp, dtype, std::move(ops)),
        source(config.sequence_length, config.model.vocab, config.model.nsa.select_block, documents),
        layers(config.model.layers) {
    session.Start(/*seed=*/1);
    BatchLoader loader(source, session.layout(), cp.rank(), config.model.nsa, 1);
    loader.Load(0, batch);
    session.Load(batch, 1 / static_cast<double>(batch.labels));
  }

  void ForwardBackward() {
    session.ops().train->Zero(session.compute(), session.model().params().gradients());
    session.model().ForwardBackward(session.inputs());
    session.compute().Synchronize();
  }
  void Forward() {
    session.model().Forward(session.inputs());
    session.compute().Synchronize();
  }
  // Sum of this rank's token losses / valid tokens of the sequence.
  double Loss() {
    double sum = 0;
    for (double loss : session.ToHost<double>(session.model().token_loss())) sum += loss;
    return sum / static_cast<double>(batch.labels);
  }
  // By layer, the selection of the last forward; nothing for other kinds of attention.
  std::vector<std::vector<int32_t>> Selections() {
    std::vector<std::vector<int32_t>> selections(layers);
    for (int64_t i = 0; i < layers; ++i) {
      if (const NsaCore* nsa = session.model().attention(i).nsa()) {
        selections[i] = session.ToHost<int32_t>(nsa->selected());
      }
    }
    return selections;
  }
  // From now on these are chosen.
  void Freeze(const std::vector<std::vector<int32_t>>& selections) {
    for (int64_t i = 0; i < layers; ++i) {
      NsaCore* nsa = session.model().attention(i).nsa();
      if (!nsa) continue;
      const Tensor& selected = nsa->selected();
      const Buffer& memory = frozen.emplace_back(device, selected.bytes(), "a frozen selection");
      const Tensor copy(memory.data(), DType::kI32, device.kind(), selected.shape);
      HostCopy(device, session.compute(), HostView(selections[i].data(), selected.shape), copy);
      nsa->FreezeSelection(copy);
    }
  }

  Device& device;
  Session session;
  RandomSource source;
  Batch batch;
  int64_t layers;
  std::vector<Buffer> frozen;
};

}  // namespace longspan
