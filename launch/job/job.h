// Job: what each rank of a command holds before it has a model: its device, the mesh of ranks, the guard that ends
// their transfers when one fails, and the watchdog over ranks that hang.
#pragma once

#include <forward_list>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "launch/config/run_config.h"
#include "launch/job/binding.h"
#include "launch/job/environment.h"
#include "launch/job/watchdog.h"
#include "parallel/comm/gpu_comm.h"
#include "parallel/comm/mesh.h"
#include "parallel/config.h"

namespace longspan {

class Job {
 public:
  // Collective over all ranks, with MPI running (World). Throws Error (configuration): ranks outnumber GPUs, or are not
  // dp x cp.
  Job(DeviceKind device, const ParallelConfig& parallel, const CommConfig& limits = {});

  Device& device() const { return *binding_.device; }
  const Mesh& mesh() const { return mesh_; }
  Watchdog& watchdog() { return watchdog_; }
  bool root() const { return mesh_.host_world().rank() == 0; }
  // In use on the device: by the process on a CPU, gone since the job began on a GPU.
  int64_t MemoryBytes() const;
  const Environment& environment() const { return environment_; }  // of this rank
  // For the startup: which rank computes where, on which versions, in which environment, and what is to be said against
  // it. The same on all ranks.
  const std::string& placement() const { return placement_; }

  // Makes what owns memory or streams of the device, or is about to transfer. The job owns it and ends transfers
  // between GPUs before it goes (TransferGuard), the last made first. Graphs with transfers in them live elsewhere, and
  // go before the job.
  template <typename T, typename... Arguments>
  T& Make(Arguments&&... arguments) {
    auto made = std::make_shared<T>(std::forward<Arguments>(arguments)...);
    T& result = *made;
    owned_.push_front(std::move(made));
    return result;
  }

  struct Number {
    double value;
    ReduceOp op;
  };
  // Each number over all ranks, in rank order. Collective, the hosts wait for each other: once for all numbers.
  std::vector<double> Reduce(std::span<const Number> numbers);
  std::vector<double> Reduce(std::initializer_list<Number> numbers) {
    return Reduce(std::span(numbers.begin(), numbers.size()));
  }
  double Reduce(double value, ReduceOp op) { return Reduce({{value, op}})[0]; }

 private:
  Watchdog watchdog_;
  const Binding binding_;
  const int64_t available_ = device().AvailableBytes();
  const std::unique_ptr<Stream> host_stream_ = MakeCpuDevice()->MakeStream("host");
  const Mesh mesh_;
  const Environment environment_ = ReadEnvironment();
  const std::string placement_;
  std::forward_list<std::shared_ptr<void>> owned_;
  const TransferGuard guard_;  // goes first
};

}  // namespace longspan
