// Maps by which the copy engine finds boxes of a tensor.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace longspan {

// What the copy engine asks of addresses.
inline bool AlignedForCopies(const void* x) { return reinterpret_cast<uintptr_t>(x) % 16 == 0; }

// Of x [rows,heads,width], bf16: boxes of [box_rows,box_heads] and 64 channels, which lie in shared memory as a chunk
// (kernels/base/ptx_sm90.cuh). Coordinates are channel, head, row.
CUtensorMap RowsMap(const char* operation, const void* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                    int box_heads);
// The same of x in fp32: boxes of 32 channels.
CUtensorMap SumsMap(const char* operation, float* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                    int box_heads);

// Of x [queries,parts,part_heads,width], bf16, part_heads at most 8: boxes of a `whole` query, which lie in shared
// memory as [parts][chunks][8 rows], zeros in the rows beyond part_heads; or of one chunk's part_heads rows of one
// part. Coordinates are 0, 0, chunk, part, query.
CUtensorMap QueriesMap(const char* operation, const void* x, int64_t queries, int parts, int part_heads, int64_t width,
                       bool whole);

// Of x [rows,heads,width], bf16: boxes of [box_heads,box_rows], the rows of a head one after another, and 64 channels.
// Coordinates are channel in its chunk of 64, row, head, chunk.
CUtensorMap HeadRowsMap(const char* operation, const void* x, int64_t rows, int64_t heads, int64_t width, int box_rows,
                        int box_heads);

}  // namespace longspan
