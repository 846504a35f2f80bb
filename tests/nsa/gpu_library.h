// The library on GPU 0, on the values of an NsaCase.
#pragma once

#include "runtime/foreign_stream.h"
#include "tests/nsa/library.h"
#include "tests/support/gpu_values.h"

namespace longspan::test {

inline NSAConfig OnGpu(const NsaCase& c, DType dtype) {
  NSAConfig config = ConfigOf(c, dtype == DType::kBf16 ? NSA_BFLOAT16 : NSA_FLOAT32);
  config.device = 0;
  return config;
}

// The values of a case in GPU memory, and room for results.
struct DeviceValues {
  DeviceValues(const NsaCase& c, DType dtype) : machine(GpuMachine(dtype)) {
    const int64_t S = c.tokens, H = c.heads, G = c.groups, K = c.key_width, V = c.value_width;
    q = UploadValues(machine, "q", c.in.q, {S, H, K});
    gates = UploadValues(machine, "gates", c.in.gates, {S, H, 3});
    call.tokens = S;
    call.q = q.view().data;
    call.gates = gates.view().data;
    for (int branch = 0; branch < (c.nsa.kv_branches == KvBranches::kShared ? 1 : 3); ++branch) {
      k[branch] = UploadValues(machine, "k", c.in.k[branch], {S, G, K});
      v[branch] = UploadValues(machine, "v", c.in.v[branch], {S, G, V});
      call.k[branch] = k[branch].view().data;
      call.v[branch] = v[branch].view().data;
    }
    out = OwnedTensor(machine, "out", dtype, {S, H, V});
    selected = OwnedTensor(machine, "selected", DType::kI32, {S, G, c.nsa.select});
  }

  OwnedTensor Bytes(const char* name, size_t bytes) const {
    return OwnedTensor(machine, name, DType::kU8, {static_cast<int64_t>(bytes)});
  }
  // The library works on the default stream, tests copy on their own.
  void Wait() const {
    const auto done = machine.device->MakeEvent();
    RecordForeign(nullptr, *done);
    machine.stream->Wait(*done);
    machine.stream->Synchronize();
  }

  Machine machine;
  OwnedTensor q, gates, out, selected;
  std::array<OwnedTensor, 3> k, v;
  NSAInputs call = {};
};

}  // namespace longspan::test
