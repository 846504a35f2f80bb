// The CPUs of this machine, by hwloc: which this process may get, which it has, which are near a device.
//
// A set of CPUs is a text such as "0-3,8", so that ranks can tell each other theirs. What hwloc cannot tell is "":
// nothing here throws.
#pragma once

#include <memory>
#include <string>

namespace longspan {

// Whole cores for the `place`-th of `ranks` ranks: `count` of them from the `first` on. Shares differ by one core at
// most; where ranks outnumber cores nobody gets any.
struct CoreShare {
  int first = 0;
  int count = 0;
};
CoreShare ShareCores(int cores, int place, int ranks);

class CoreMap {
 public:
  CoreMap();
  ~CoreMap();
  CoreMap(const CoreMap&) = delete;
  CoreMap& operator=(const CoreMap&) = delete;

  std::string Allowed() const;                         // what the machine and its container leave to processes
  std::string Own() const;                             // where the calling thread may run
  std::string Near(const std::string& address) const;  // Allowed, near the PCI device of this address: "0000:1b:00.0"
  std::string Share(const std::string& cpus, int place,
                    int ranks) const;                // those of ShareCores, of the cores in `cpus`
  std::string Nodes(const std::string& cpus) const;  // the NUMA nodes of these CPUs
  // Someone before us left the calling thread less than Allowed.
  bool Bound() const;
  // The calling thread and those that it will start; says whether that worked.
  bool Bind(const std::string& cpus) const;

 private:
  struct Topology;
  std::unique_ptr<Topology> topology_;
};

}  // namespace longspan
