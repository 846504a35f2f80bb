// A device on which nothing runs: for the cost of work before it is done.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/device.h"

namespace longspan {

// Looks like a device of `kind`. Its streams drop all work, but the spans of that work count in the trace, with their
// FLOPs and bytes and no time (Stream::planned). Its memory, of any size, is addresses without pages: zeros to whoever
// reads what the host has not written. Bytes (U8) that are copied from it to other memory arrive as `byte`.
std::unique_ptr<Device> MakePlannedDevice(DeviceKind kind, uint8_t byte = 0);

// Scratch that a family of GPU kernels takes, as its GpuScratch would: the most of what is asked for. Nothing on
// streams of other devices than a planned GPU.
void PlanScratch(Stream& stream, const std::string& what, int64_t bytes);
int64_t PlannedScratchBytes(const Device& planned);  // of all families

}  // namespace longspan
