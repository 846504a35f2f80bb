#include "parallel/comm/transfer_memory.h"

namespace longspan {

int64_t NcclBytes(const std::vector<int64_t>& groups) {
  constexpr int64_t kProcess = 460, kGroup = 478, kPeer = 386;  // MiB
  if (std::any_of(groups.begin(), groups.end(), [](int64_t ranks) { return ranks > 8; })) return -1;
  int64_t mib = 0;
  for (const int64_t ranks : groups) mib += ranks > 1 ? kGroup + kPeer * (ranks - 1) : 0;
  return mib > 0 ? (kProcess + mib) << 20 : 0;
}

}  // namespace longspan
