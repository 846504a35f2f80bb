// Device, Stream, Event: the machine behind one interface.
//
// A Device allocates, copies and makes streams and events. Work on a stream happens in order; between streams only
// events order it. CPU streams run their work at once, on the calling thread. In reordering mode (a test mode) they
// hold it back and run it as late and as mixed as the events allow, from Synchronize(): a missing wait then fails on
// CPU too. The mode is chosen by the environment variable LONGSPAN_CPU_STREAMS = immediate | reorder[:seed], or by
// SetCpuStreamMode.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "runtime/tensor.h"

namespace longspan {

// A point in a stream's work. Made by Device::MakeEvent, may be recorded many times; a wait refers to the last record
// before it. Waiting for an event that was never recorded does nothing.
class Event {
 public:
  virtual ~Event() = default;
};

// Whose time a stream's work takes: the calling thread's (CPU streams), or that of the GPU's stream named "compute", of
// the one named "comm", or of another, which runs beside them.
enum class Lane : uint8_t { kHost, kCompute, kComm, kBeside };

class Stream {
 public:
  virtual ~Stream() = default;
  virtual DeviceKind kind() const = 0;
  virtual Lane lane() const { return Lane::kHost; }
  // Runs `task` on the host in stream order. CPU kernels and MPI transfers are such tasks. The task owns (by value)
  // everything it reads but tensor memory.
  virtual void Enqueue(std::function<void()> task) = 0;
  virtual void Record(Event& event) = 0;  // event happens when all work enqueued so far is done
  // Later work of this stream starts after the event. `stall` (a literal) makes a span of the trace of the time for
  // which that holds up a GPU's stream; on a CPU the work waited for is itself a span of the waiting thread.
  virtual void Wait(const Event& event, const char* stall = nullptr) = 0;
  virtual void Synchronize() = 0;  // host waits for all work of this stream; rethrows a task's exception, or
                                   // throws what a GPU's kernels found wrong in their data
  virtual bool planned() const { return false; }  // of a planned device: nothing runs (runtime/planned_device.h)
};

// Measures one stretch of a stream's work at a time, where it runs.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual void Start(Stream& stream) = 0;
  virtual void Stop(Stream& stream) = 0;  // of the same stream
  virtual double Seconds() = 0;           // between the two; waits for that work
};

// Work that was enqueued once and can be enqueued again at once.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void Launch() = 0;  // on the stream of its capture
};

class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual std::string name() const = 0;               // for the startup table: "cpu (2 threads)"
  virtual std::string address() const { return ""; }  // of a GPU: GpuAddress
  virtual std::unique_ptr<Stream> MakeStream(const std::string& name) = 0;
  virtual std::unique_ptr<Event> MakeEvent() = 0;
  virtual std::unique_ptr<Timer> MakeTimer() = 0;
  // Spans of the trace that are recorded from now on have begin times of the host's clock, as it is compared with the
  // device's now. The host waits for `stream`. Minutes later the clocks have drifted. Nothing on a CPU.
  virtual void CompareClocks(Stream&) {}
  // 64-byte aligned (256 on GPU); throws Error naming `what` and the bytes when memory is out. Free with the same
  // device.
  virtual void* Allocate(int64_t bytes, const std::string& what) = 0;
  virtual void Free(void* data) noexcept = 0;
  virtual int64_t AvailableBytes() const = 0;  // of its memory, for this process; -1 when unknown
  // Host memory that copies to and from this device reach without a detour (page-locked for a GPU).
  virtual void* AllocateHost(int64_t bytes, const std::string& what) = 0;
  virtual void FreeHost(void* data) noexcept = 0;
  // Same size and dtype, both contiguous. A GPU copies between any two memories, a CPU only host memory.
  virtual void Copy(Stream& stream, Tensor to, Tensor from) = 0;
  virtual void FillBytes(Stream& stream, Tensor tensor, uint8_t value) = 0;  // contiguous
  // Work of `stream`, and of streams that events fork from it and join to it again. On a GPU a CUDA graph: `enqueue` is
  // called now and may not allocate, wait on the host or enqueue host tasks, and nothing runs before Launch; the
  // tensors' addresses and the numbers given to kernels stay what they are, and spans within are not traced. On a CPU
  // each Launch calls `enqueue`.
  virtual std::unique_ptr<Graph> Capture(Stream& stream, std::function<void()> enqueue) = 0;
};

enum class CpuStreamMode { kImmediate, kReorder };

// For streams made from now on. `seed` drives the order of kReorder.
void SetCpuStreamMode(CpuStreamMode mode, uint64_t seed = 1);

std::unique_ptr<Device> MakeCpuDevice();
// Throws Error (configuration) in a build without CUDA (runtime/no_gpu.cc).
std::unique_ptr<Device> MakeGpuDevice(int index);
int GpuCount();  // 0 in a build without CUDA
// On the PCI bus, as in /sys/bus/pci/devices: "0000:1b:00.0"; "" when unknown, and in a build without CUDA.
std::string GpuAddress(int index);

}  // namespace longspan
