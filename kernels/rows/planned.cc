// The operations on rows of a planned device: arguments are checked and the work counted, as on a device of that kind.
#include "kernels/rows/check.h"
#include "kernels/rows/ops.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

class PlannedRows final : public RowOps {
 public:
  explicit PlannedRows(DeviceKind kind) : kind_(kind) {}

  void Gather(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) override {
    CheckRows(On("rows.gather"), from, index, to, "from", "to");
    Launch(stream, "rows.gather", {0, 2.0 * to.bytes()}, nullptr);
  }
  void Add(Stream& stream, const Tensor& from, const Tensor& index, const Tensor& to) override {
    CheckRows(On("rows.add"), to, index, from, "to", "from");
    Launch(stream, "rows.add", {1.0 * from.size(), 3.0 * from.bytes()}, nullptr);
  }
  void Mark(Stream& stream, const Tensor& ids, const Tensor& place, const Tensor& marks) override {
    CheckMark(On("rows.mark"), ids, place, marks);
    Launch(stream, "rows.mark", {0, 1.0 * ids.bytes()}, nullptr);
  }
  void Copy(Stream& stream, const Tensor& from, const Tensor& to) override {
    Launch(stream, "rows.copy", {0, static_cast<double>(from.bytes() + to.bytes())}, nullptr);
  }
  void Zero(Stream& stream, const Tensor& x) override { Launch(stream, "rows.zero", {0, 1.0 * x.bytes()}, nullptr); }

 private:
  Operation On(const char* name) const { return {name, kind_}; }

  const DeviceKind kind_;
};

}  // namespace

std::unique_ptr<RowOps> MakePlannedRows(DeviceKind kind) { return std::make_unique<PlannedRows>(kind); }

}  // namespace longspan
