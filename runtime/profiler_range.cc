#include "runtime/profiler_range.h"

#include <nvtx3/nvToolsExt.h>

namespace longspan {

void PushRange(const char* name, int64_t number) {
  nvtxEventAttributes_t range{};
  range.version = NVTX_VERSION;
  range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  range.messageType = NVTX_MESSAGE_TYPE_ASCII;
  range.message.ascii = name;
  if (number >= 0) {
    range.payloadType = NVTX_PAYLOAD_TYPE_INT64;
    range.payload.llValue = number;
  }
  nvtxRangePushEx(&range);
}

void PopRange() { nvtxRangePop(); }

}  // namespace longspan
