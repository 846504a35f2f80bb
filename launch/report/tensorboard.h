// The metrics of a run for TensorBoard: an event file, that is TFRecord (length, masked CRC32C, bytes, masked CRC32C)
// of launch/report/event.proto.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "launch/report/report.h"

namespace longspan {

// Writes DIR/events.out.tfevents.SECONDS.NAME, NAME the run's folder; makes DIR. Returns the path. Throws Error (io).
// Times are those of the run's start, and of a step the seconds that it took until then.
std::string WriteTensorBoard(const ReportedRun& run, const std::string& folder);

uint32_t Crc32c(std::string_view bytes);

}  // namespace longspan
