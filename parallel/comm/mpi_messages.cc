#include "parallel/comm/mpi_messages.h"

#include <algorithm>
#include <string>

#include "runtime/error.h"

namespace longspan {
namespace {

constexpr int kTag = 1;

}  // namespace

void CheckMpi(int code, const CommCall& call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  Fail(ExitCode::kRankFailed, "{}: {}", call.Text(), std::string(text, length));
}

MpiMessages::MpiMessages(MPI_Comm comm, const CommCall& call, int64_t piece_bytes)
    : comm_(comm), call_(call), piece_bytes_(piece_bytes) {}

void MpiMessages::Send(int peer, const void* data, int64_t bytes) {
  int64_t offset = 0;
  do {
    const int piece = static_cast<int>(std::min(piece_bytes_, bytes - offset));
    requests_.push_back(MPI_REQUEST_NULL);
    CheckMpi(MPI_Isend(static_cast<const char*>(data) + offset, piece, MPI_BYTE, peer, kTag, comm_, &requests_.back()),
             call_);
    offset += piece;
  } while (offset < bytes);
}

void MpiMessages::Receive(int peer, void* data, int64_t bytes) {
  int64_t offset = 0;
  do {
    const int piece = static_cast<int>(std::min(piece_bytes_, bytes - offset));
    expected_.push_back({requests_.size(), peer, piece});
    requests_.push_back(MPI_REQUEST_NULL);
    CheckMpi(MPI_Irecv(static_cast<char*>(data) + offset, piece, MPI_BYTE, peer, kTag, comm_, &requests_.back()),
             call_);
    offset += piece;
  } while (offset < bytes);
}

// One by one: Open MPI 4.1 does not return from MPI_Waitall when a message is too long for its receiver.
void MpiMessages::Wait() {
  std::vector<MPI_Status> statuses(requests_.size());
  for (size_t i = 0; i < requests_.size(); ++i) CheckMpi(MPI_Wait(&requests_[i], &statuses[i]), call_);
  for (const Expected& message : expected_) {
    int found = 0;
    CheckMpi(MPI_Get_count(&statuses[message.request], MPI_BYTE, &found), call_);
    LS_CHECK(found == message.bytes, "{}: expected {} bytes from rank {}, found {}", call_.Text(), message.bytes,
             message.peer, found);
  }
  requests_.clear();
  expected_.clear();
}

}  // namespace longspan
