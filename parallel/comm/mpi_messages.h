// What the MPI communicator stands on: checked calls, and messages of any size.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <vector>

#include "parallel/comm/checked_comm.h"

namespace longspan {

// Throws Error with the call and MPI's text when `code` is not MPI_SUCCESS. The communicator's handler is
// MPI_ERRORS_RETURN.
void CheckMpi(int code, const CommCall& call);

// A set of messages under way. MPI counts in int, so a long message travels in pieces; MPI keeps the order of the
// pieces between two ranks, and that of the messages.
class MpiMessages {
 public:
  static constexpr int64_t kPieceBytes = int64_t{1} << 30;

  MpiMessages(MPI_Comm comm, const CommCall& call, int64_t piece_bytes = kPieceBytes);
  // The memory stays untouched until Wait. A message of 0 bytes is a message, too.
  void Send(int peer, const void* data, int64_t bytes);
  void Receive(int peer, void* data, int64_t bytes);
  // Until all are done. Throws Error when one failed or had another length than its receiver expected.
  void Wait();

 private:
  struct Expected {
    size_t request;
    int peer;
    int bytes;
  };
  MPI_Comm comm_;
  CommCall call_;
  int64_t piece_bytes_;
  std::vector<MPI_Request> requests_;
  std::vector<Expected> expected_;
};

}  // namespace longspan
