// The parameter table: name, shape, initialisation and decay group of every weight, in one flat buffer, contiguous by
// layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "runtime/memory.h"

namespace longspan {

// N(0, stddev^2); stddev 0 with `mean` 0 or 1 gives constants.
struct Init {
  double mean = 0;
  double stddev = 0;
};

struct Param {
  std::string name;
  Shape shape;
  Init init;
  bool decay = false;  // in AdamW's decay group: matrices yes; norms, biases and position encodings no
  int64_t offset = 0;  // first element in the flat buffers
  Tensor weight;       // valid after Bind
  Tensor gradient;
  int64_t size() const { return shape.count(); }
};

class ParamTable {
 public:
  // In the order of the flat buffer. The reference stays valid.
  Param& Add(const std::string& name, const Shape& shape, Init init, bool decay);
  void Reserve(Arena& arena, DType dtype, DType gradient_dtype);
  void ReserveWeights(Arena& arena, DType dtype);  // without gradients: nothing is learned
  void Bind();                                     // after Commit: cuts every weight and gradient from the flat buffers
  // Draws every weight on the host from (seed, name) alone: the same whatever the ranks, the order or the dtype.
  // Weights are rounded to theirs; gradients are zero afterwards.
  void Initialise(Device& device, Ops& ops, Stream& stream, uint64_t seed);
  // The same draws, of parameters [first, last), into `flat`: F32 or F64, their part of a flat buffer.
  void Draw(Device& device, Stream& stream, uint64_t seed, int64_t first, int64_t last, const Tensor& flat) const;

  int64_t size() const { return size_; }                  // elements of a flat buffer, gaps for alignment included
  int64_t parameters() const;                             // without gaps
  const Tensor& weights() const { return weights_; }      // [size()]
  const Tensor& gradients() const { return gradients_; }  // [size()]
  const std::vector<std::unique_ptr<Param>>& params() const { return params_; }
  const Param& Find(const std::string& name) const;  // throws when there is none

 private:
  std::vector<std::unique_ptr<Param>> params_;
  int64_t size_ = 0;
  Tensor weights_, gradients_;
};

}  // namespace longspan
