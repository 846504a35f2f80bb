// Token files that do not say where documents end: llm.c's .bin and nanoGPT's headerless .bin.
//
//   llm.c    256 x i32 header: [0] magic 20240520 (GPT-2) or 20240801 (Llama 3), [1] version 1 or 7, [2] number of
//   tokens;
//            then the tokens, u16 (GPT-2) or u32 (Llama 3). The separator stands at the START of each document.
//   nanoGPT  tokens u16 from byte 0. The separator stands at the END of each document.
#pragma once

#include <string>

#include "launch/data/dataset.h"

namespace longspan {

Dataset OpenLlmc(const std::string& path, const DatasetOptions& options);
Dataset OpenNanogpt(const std::string& path, const DatasetOptions& options);
bool IsLlmc(const MappedFile& file);  // has one of the magic numbers

}  // namespace longspan
