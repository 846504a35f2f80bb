// A step of decoding as kernels see it, and where its rows lie.
#pragma once

#include "kernels/attention/decode.h"
#include "kernels/base/gpu_common.cuh"

namespace longspan {

struct StepView {
  const int4* entries;   // [B]: sequence, length, count, row
  const int2* queries;   // [T]: entry, position
  const int32_t* table;  // [.,width]
  int width, entry_count;
  bool by_entry;

  __device__ const int32_t* TableOf(int entry) const {
    return table + static_cast<int64_t>(by_entry ? entry : entries[entry].x) * width;
  }
};

inline StepView ViewOf(const DecodeStep& step) {
  return {GpuData<const int4>(step.entries),     GpuData<const int2>(step.queries),
          GpuData<const int32_t>(step.table),    static_cast<int>(step.table.dim(1)),
          static_cast<int>(step.entries.dim(0)), step.table_by_entry};
}

// Pages of one sequence.
struct PagesView {
  const int32_t* table;
  int ring_pages, sequence;  // ring_pages 0: the table's
  int page_rows;

  __device__ int RowOf(int i) const {
    const int page = i / page_rows;
    const int slot = ring_pages == 0 ? __ldg(table + page) : sequence * ring_pages + page % ring_pages;
    return slot * page_rows + (i - page * page_rows);
  }
};

}  // namespace longspan
