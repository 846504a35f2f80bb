// The communicator on GPUs, and its end when something fails.
#pragma once

#include <exception>
#include <memory>
#include <string>

#include "parallel/comm/comm.h"

namespace longspan {

// Every verb is work of the GPU's stream, the host does not wait. kPeer: between GPUs of one machine by their own
// kernel and copy engines; throws Error (configuration) where they cannot. Else by NCCL. When a communicator goes while
// an exception passes, it ends what is under way instead of waiting for it.
std::unique_ptr<Communicator> MakeGpuCommunicator(std::unique_ptr<Communicator> host, Device& device,
                                                  Transport transport);

void AbortTransfers();  // all of this process, at once

// When it goes while an exception passes, every transfer of this process between GPUs ends at once. Declared after all
// that owns GPU memory or streams, it goes first: freeing those waits for work under way, and that for peers that may
// never come. Only graphs with transfers in them go before the guard: NCCL does not end while they hold it.
class TransferGuard {
 public:
  TransferGuard() = default;
  ~TransferGuard() {
    if (std::uncaught_exceptions() > exceptions_) AbortTransfers();
  }
  TransferGuard(const TransferGuard&) = delete;
  TransferGuard& operator=(const TransferGuard&) = delete;

 private:
  const int exceptions_ = std::uncaught_exceptions();
};

// Tells the flight recorder which transfers are done. Returns what is known to have gone wrong, "" for nothing. Any
// thread.
std::string PollTransfers();

}  // namespace longspan
