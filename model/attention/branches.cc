#include "model/attention/branches.h"

namespace longspan {

void Branches::Fill(int branch, BranchArgs* args) const {
  args->segments = branch == kWin ? window_segments : segments;
  args->doc_start = doc_start;
  args->q = q;
  args->kv = keys[branch];
  args->scale = scale;
  args->o = out.o[branch];
  args->lse = out.lse[branch];
}

CompressedArgs Branches::Compressed() const {
  CompressedArgs args;
  Fill(kCmp, &args);
  args.block = nsa.block;
  args.stride = nsa.stride;
  return args;
}

SelectedArgs Branches::Selected() const {
  SelectedArgs args;
  Fill(kSlc, &args);
  args.select_block = nsa.select_block;
  args.selected = out.selected;
  return args;
}

WindowArgs Branches::Window() const {
  WindowArgs args;
  Fill(kWin, &args);
  args.window = nsa.window;
  return args;
}

void Branches::Forward(AttentionOps& ops, Stream& stream) const {
  ops.Compressed(stream, Compressed());
  ops.Select(stream, {.segments = segments,
                      .doc_start = doc_start,
                      .q = q,
                      .k = keys[kCmp].k,
                      .pages = keys[kCmp].pages,
                      .lse = out.lse[kCmp],
                      .scale = scale,
                      .nsa = nsa,
                      .selected = out.selected,
                      .scores = {}});
  ops.Selected(stream, Selected());
  ops.Window(stream, Window());
}

}  // namespace longspan
