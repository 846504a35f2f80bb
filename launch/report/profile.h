// The per-rank profile at the end of a run: where the time of each rank went.
//
// Every rank writes FOLDER/profile/rankNNNNN.json: {"rank","dp","cp","host","seconds","steps","spans":{NAME:{"count",
// "seconds","flops","bytes"}}}, dp and cp its indices in the mesh; rank 0 also the table over all ranks,
// profile/report.txt, and returns it.
#pragma once

#include <string>

#include "parallel/comm/comm.h"

namespace longspan {

// Collective over `world`, on host memory, of which `cp` neighbours share a sequence. Throws Error (io). `device` is
// where the ranks compute. `seconds` is the wall time of the `steps` training steps that the trace covers.
//
// Exposed communication is the time for which kernels waited for transfers: spans stall.* of a GPU's compute stream,
// and on a CPU all transfers. Within graphs it is not seen.
std::string WriteReport(Communicator& world, int cp, DeviceKind device, const std::string& folder, double seconds,
                        int64_t steps);

}  // namespace longspan
