// What rows by index ask of their arguments on either backend.
#pragma once

#include "kernels/base/arguments.h"

namespace longspan {

// Throws Error unless `indexed` has the rows that index [n] I32 names and `listed` one row for each entry of it.
void CheckRows(const Operation& operation, const Tensor& indexed, const Tensor& index, const Tensor& listed,
               const char* indexed_name, const char* listed_name);

// Throws Error unless ids [..] and place [n] are I32 and marks [m] U8.
void CheckMark(const Operation& operation, const Tensor& ids, const Tensor& place, const Tensor& marks);

// The elements of one row.
int64_t RowSize(const Tensor& tensor);

}  // namespace longspan
