// Long texts are encoded in slices, on many threads and in little memory, with the tokens of the whole text.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "launch/data/tokenizer.h"

namespace longspan {

// Where slice i nominally begins is i * kSliceBytes. A sum of scores over a text much longer than this has lost in
// single precision what single tokens differ in, so that slices are also the better encoding.
inline constexpr size_t kSliceBytes = size_t{256} << 10;

// The tokens of slice `slice` of `text`: those of all slices after each other are the text's. A slice really begins at
// a token that comes out the same whatever stands farther away than some thousand bytes, and is encoded with so much
// text around it; where there is no such token the slice before goes on, and this one is empty.
std::vector<int32_t> EncodeSlice(const Tokenizer& tokenizer, std::string_view text, size_t slice);

}  // namespace longspan
