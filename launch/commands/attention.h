// `longspan attention`: the NSA operator on the tensors of a case file (launch/commands/attention_case.h), under any
// number of ranks.
//
// Writes, as safetensors: out, o_cmp, o_slc, o_win [S,H,V]; lse_cmp, lse_slc, lse_win [S,H] (natural log); selected
// [S,G,N] I32; and when the case has d_out, a gradient d_NAME for every floating input and weight. Floats in the type
// of the case, lse in F32 at least. The CPU computes BF16 cases in F32, F32 cases in F64; a GPU BF16 and F32 as they
// are.
//
// The result is a selection file, too (launch/train/selection_file.h); --record-selection writes one that is small.
//
// Each rank maps the file and takes its rows. A length that cannot be cut is padded at the end: causality hides the
// padding. Forward results have the same bits whatever the ranks, layout and exchange.
#pragma once

#include <string>

#include "parallel/comm/comm.h"
#include "parallel/config.h"

namespace longspan {

struct AttentionOptions {
  std::string input;             // --case: safetensors file with the operator's tensors
  std::string output;            // --out: safetensors file to write
  std::string selected;          // --selected: selection file whose "selected" freezes the choice; empty = none
  std::string record_selection;  // --record-selection: selection file to write; empty = none
  DeviceKind device = DeviceKind::kCpu;
  bool share_gpu = false;  // several ranks may use one GPU
  LayoutKind layout = LayoutKind::kHeadTail;
  SelectedExchange selected_exchange = SelectedExchange::kGather;
};

// Collective over `cp`, whose memory is the device's; its rank 0 writes. Throws Error (data) when the case is wrong.
void RunAttentionCase(const AttentionOptions& options, Device& device, Communicator& cp);

}  // namespace longspan
