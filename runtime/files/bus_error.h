// What happens when a mapped file has no longer the bytes that it had when it was mapped: someone cut it, or its disk
// failed. The system then sends SIGBUS to whoever reads them.
#pragma once

namespace longspan {

// From now on that ends this process with a message that names the file, and exit code 74 (io); any other SIGBUS does
// what it did before. Once a process; more calls do nothing. Open MPI complains of handlers that were there before it,
// so the first file is mapped after MPI_Init where there is MPI.
void CatchBusErrors();

}  // namespace longspan
