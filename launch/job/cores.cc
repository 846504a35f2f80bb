#include "launch/job/cores.h"

#include <fmt/format.h>
#include <hwloc.h>
#include <hwloc/linux.h>

#include <algorithm>
#include <cstdlib>

namespace longspan {
namespace {

// A set of CPUs or NUMA nodes, from its text and back.
class Bitmap {
 public:
  explicit Bitmap(const std::string& text = "") { hwloc_bitmap_list_sscanf(bits_, text.c_str()); }
  explicit Bitmap(hwloc_const_bitmap_t bits) { hwloc_bitmap_copy(bits_, bits); }
  ~Bitmap() { hwloc_bitmap_free(bits_); }
  Bitmap(const Bitmap&) = delete;
  Bitmap& operator=(const Bitmap&) = delete;

  hwloc_bitmap_t get() const { return bits_; }
  std::string Text() const {
    char* text = nullptr;
    if (hwloc_bitmap_list_asprintf(&text, bits_) < 0) return "";
    std::string copy = text;
    std::free(text);
    return copy;
  }

 private:
  hwloc_bitmap_t bits_ = hwloc_bitmap_alloc();
};

}  // namespace

struct CoreMap::Topology {
  Topology() { known = hwloc_topology_init(&tree) == 0 && hwloc_topology_load(tree) == 0; }
  ~Topology() {
    if (tree) hwloc_topology_destroy(tree);
  }
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;

  hwloc_topology_t tree = nullptr;
  bool known = false;
};

CoreShare ShareCores(int cores, int place, int ranks) {
  if (ranks > cores) return {};
  const int each = cores / ranks, more = cores % ranks;  // the first `more` ranks get one more
  return {place * each + std::min(place, more), each + (place < more ? 1 : 0)};
}

CoreMap::CoreMap() : topology_(std::make_unique<Topology>()) {}
CoreMap::~CoreMap() = default;

std::string CoreMap::Allowed() const {
  return topology_->known ? Bitmap(hwloc_topology_get_allowed_cpuset(topology_->tree)).Text() : "";
}

std::string CoreMap::Own() const {
  const Bitmap own;
  const bool told = topology_->known && hwloc_get_cpubind(topology_->tree, own.get(), HWLOC_CPUBIND_THREAD) == 0;
  return told ? own.Text() : "";
}

std::string CoreMap::Near(const std::string& address) const {
  const Bitmap near, allowed(Allowed());
  const std::string path = fmt::format("/sys/bus/pci/devices/{}/local_cpus", address);
  if (address.empty() || hwloc_linux_read_path_as_cpumask(path.c_str(), near.get()) != 0) return "";
  hwloc_bitmap_and(near.get(), near.get(), allowed.get());
  return near.Text();
}

std::string CoreMap::Share(const std::string& cpus, int place, int ranks) const {
  if (!topology_->known) return "";
  const hwloc_topology_t tree = topology_->tree;
  const Bitmap all(cpus), share;
  // Some virtual machines show CPUs without cores.
  const hwloc_obj_type_t type = hwloc_get_nbobjs_by_type(tree, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  const CoreShare cores = ShareCores(hwloc_get_nbobjs_inside_cpuset_by_type(tree, all.get(), type), place, ranks);
  for (int i = cores.first; i < cores.first + cores.count; ++i) {
    const hwloc_obj_t core = hwloc_get_obj_inside_cpuset_by_type(tree, all.get(), type, i);
    hwloc_bitmap_or(share.get(), share.get(), core->cpuset);
  }
  return share.Text();
}

std::string CoreMap::Nodes(const std::string& cpus) const {
  if (!topology_->known) return "";
  const Bitmap set(cpus), nodes;
  hwloc_cpuset_to_nodeset(topology_->tree, set.get(), nodes.get());
  return nodes.Text();
}

bool CoreMap::Bound() const {
  const Bitmap allowed(Allowed()), own(Own());
  return hwloc_bitmap_iszero(own.get()) == 0 && hwloc_bitmap_isincluded(allowed.get(), own.get()) == 0;
}

bool CoreMap::Bind(const std::string& cpus) const {
  if (!topology_->known || cpus.empty()) return false;
  return hwloc_set_cpubind(topology_->tree, Bitmap(cpus).get(), HWLOC_CPUBIND_THREAD) == 0;
}

}  // namespace longspan
