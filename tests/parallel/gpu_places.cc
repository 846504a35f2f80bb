// The GPUs of one node, by NCCL, by their copy engines and staged. Ranks share them where they are fewer.
#include <map>

#include "parallel/comm/nccl.h"
#include "tests/parallel/places.h"

namespace longspan::test {
namespace {

std::map<Transport, Machine> machines;

class Cleanup : public testing::Environment {
 public:
  void TearDown() override { machines.clear(); }
};
[[maybe_unused]] const auto* const kCleanup = testing::AddGlobalTestEnvironment(new Cleanup);

}  // namespace

std::vector<Place> Places() {
  return {{"nccl", Transport::kNccl, 0}, {"peer", Transport::kPeer, 0}, {"staged", Transport::kStaged, 0}};
}

std::vector<Place> NodePlaces() { return {}; }

bool CanRun() { return GpuCount() > 0; }

Machine& MachineAt(const Place& place) {
  Machine& machine = machines[place.transport];
  if (!machine.device) {
    auto host = MakeMpiWorld();
    const int rank = host->rank(), gpus = GpuCount();
    PrepareNccl(rank, host->size() > gpus);
    machine.device = MakeGpuDevice(rank % gpus);
    machine.world = MakeDeviceCommunicator(std::move(host), *machine.device, place.transport);
    machine.ops = MakeGpuOps();
  }
  return machine;
}

}  // namespace longspan::test
