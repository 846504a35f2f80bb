// Decoding's kernels (kernels/attention/decode.h has their contracts), F32 or BF16, on compute capability 8.0 and
// later.
//
//   append      what begins a step, rows to their pages
//   summarize   compressed tokens that are complete now
//   attend      the branches, split by split (split.cuh: one split; select.cuh: the choice of blocks)
//   combine     splits and branches together
#pragma once

#include "kernels/attention/decode.h"

namespace longspan {

class GpuDecode final : public DecodeOps {
 public:
  bool Serves(const DecodeSizes& sizes) const override;
  int64_t SummarizeScratch(const DecodeSizes& sizes, int64_t entries, int64_t max_count) const override;
  int64_t AttendScratch(const DecodeSizes& sizes, int64_t queries, int64_t max_tokens) const override;
  void Begin(Stream& stream, const DecodeStep& step, std::span<const DecodeEntry> entries) override;
  void Begin(Stream& stream, const DecodeStep& step, const Tensor& sequences, const Tensor& lengths,
             int64_t count) override;
  void Append(Stream& stream, const DecodeAppendArgs& args) override;
  void Summarize(Stream& stream, const DecodeSummarizeArgs& args) override;
  void Attend(Stream& stream, const DecodeAttendArgs& args) override;
};

}  // namespace longspan
