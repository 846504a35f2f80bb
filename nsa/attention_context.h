// AttentionContext: what nsa_init makes. The configuration, checked; the device, its stream and kernels; weights;
// constants; and what all calls share: turning pointers into tensors, joining the caller's stream.
#pragma once

#include <memory>
#include <optional>

#include "kernels/ops.h"
#include "nsa/nsa.h"
#include "nsa/weights.h"
#include "runtime/memory.h"

namespace longspan {

class SingleQuery;

class AttentionContext {
 public:
  // Checks the configuration and finds the device. `plan_only`: only to say what a context would take.
  AttentionContext(const NSAConfig& config, bool plan_only);
  ~AttentionContext();
  AttentionContext(const AttentionContext&) = delete;
  AttentionContext& operator=(const AttentionContext&) = delete;

  static AttentionContext& Of(const NSAContext* ctx);  // refuses null and what is not initialised

  int64_t bytes() const { return arena_.bytes(); }
  void Start();  // allocates, fills constants

  // Work that a call enqueues on stream() in f() comes after what the caller's stream holds, and its later work after
  // that. On a CPU all is done when this returns.
  template <typename F>
  void Run(CUstream_st* theirs, const F& f) {
    Join(theirs);
    f();
    Release(theirs);
  }

  void SetWeight(const std::string& name, const Tensor& value);  // host memory; waits
  void LoadWeights(const std::string& path, const std::string& prefix);

  // Views of the caller's device memory. Null is refused by the argument's name.
  Tensor View(const void* data, const char* name, const Shape& shape) const { return View(data, name, dtype, shape); }
  Tensor View(const void* data, const char* name, DType type, const Shape& shape) const;

  // ceil(rows/b) pages of b rows that lie one after another.
  Pages InOrder(int64_t rows) const;
  // [rows] positions of compressed rows begin .. begin+rows-1 (row j + l/d - 1 is compressed token j) in one document.
  Tensor SummaryPositions(int64_t begin, int64_t rows) const { return positions_.Rows(begin, rows); }
  void RotateSummaries(const Tensor& k, const Tensor& positions, bool inverse);  // [rows,G,K]; nothing without rope
  // gates [T,H,3] = sigmoid(q . weight + bias), or 1 where there are no such weights. logits [T*H,3] is workspace.
  void MakeGates(const Tensor& q, const Tensor& logits, const Tensor& gates);

  const NSAConfig config;
  const NsaConfig nsa;
  const bool shared;                                    // one set of keys and values for all branches
  const int64_t heads, groups, key_width, value_width;  // H, G, K, V
  const DType dtype, gradient_dtype;
  const double scale;

  Device& device() { return *device_; }
  Stream& stream() { return *stream_; }
  Ops& ops() { return ops_; }
  Weights& weights() { return weights_; }
  SingleQuery& single();      // refuses where the configuration has no such calls
  int64_t max_pages() const;  // of a sequence
  bool rotates() const { return config.rope_theta > 0; }
  // [K/2] F64 of the compressed keys' rotation; null: not rotated
  const Tensor& frequency() const { return frequency_; }

 private:
  void Join(CUstream_st* theirs);
  void Release(CUstream_st* theirs);
  void Upload(const Tensor& host, const Tensor& to);

  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Event> joined_;
  Ops ops_;
  Weights weights_;
  Arena arena_;
  Tensor in_order_;   // [max_pages] I32: 0, 1, 2, ..
  Tensor positions_;  // [max_length/d] I32
  Tensor frequency_;  // [K/2] F64
  Tensor open_;       // [3], gates' bias that makes them 1
  std::unique_ptr<SingleQuery> single_;
};

// What is null or lies not at a multiple of 16 is refused by the argument's name and what it must be.
const void* AlignedMemory(const void* memory, const char* name, const char* what);

// Cuts tensors from one piece of device memory, or, of null, counts what they need.
class Cutter {
 public:
  Cutter(const void* memory, DeviceKind device)
      : memory_(static_cast<std::byte*>(const_cast<void*>(memory))), device_(device) {}
  Tensor Cut(DType dtype, const Shape& shape);
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  DeviceKind device_;
  int64_t bytes_ = 0;
};

}  // namespace longspan
