// What attention's kernels leave of a GPU to others.
#include "kernels/attention/gpu/attention.h"
#include "runtime/error.h"

namespace longspan {

void GpuAttention::LeaveProcessors(Stream& stream, int64_t count) {
  const int processors = Multiprocessors(stream);
  if (count < 0 || count >= processors) {
    Fail(ExitCode::kConfig,
         "parallel.transfer_processors = {}: the GPU has {} multiprocessors, and attention needs one; set it to {} or "
         "less",
         count, processors, processors - 1);
  }
  left_processors_ = static_cast<int>(count);
}

}  // namespace longspan
