// Order between our streams and those of the program that uses this library: cudaStream_t, which is a pointer to
// CUstream_st; null is the default stream of the event's device, which becomes the current one. Only for events of a
// GPU.
#pragma once

#include "runtime/device.h"

struct CUstream_st;

namespace longspan {

void RecordForeign(CUstream_st* stream, Event& event);      // event happens when the stream's work so far is done
void WaitForeign(CUstream_st* stream, const Event& event);  // the stream's later work starts after the event

}  // namespace longspan
