#include "launch/report/profile.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "parallel/comm/texts.h"
#include "runtime/count.h"
#include "runtime/trace.h"

namespace longspan {
namespace {

using nlohmann::json;

json OwnProfile(int rank, int cp, double seconds, int64_t steps) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  json spans = json::object();
  for (const auto& [name, total] : Trace::Get().totals()) {
    spans[name] = {{"count", total.count}, {"seconds", total.seconds}, {"flops", total.flops}, {"bytes", total.bytes}};
  }
  return {{"rank", rank},       {"dp", rank / cp}, {"cp", rank % cp}, {"host", host},
          {"seconds", seconds}, {"steps", steps},  {"spans", spans}};
}

struct Row {
  double sum = 0, least = 1e300, most = 0, flops = 0, bytes = 0;
  int slowest = 0;
};

std::string Table(const std::vector<json>& profiles, bool gpu) {
  std::map<std::string, Row> rows;
  double wall = 0;
  const auto ranks = static_cast<double>(profiles.size());
  for (const json& profile : profiles) {
    wall = std::max(wall, profile["seconds"].get<double>());
    for (const auto& [name, span] : profile["spans"].items()) {
      Row& row = rows[name];
      const double seconds = span["seconds"];
      row.sum += seconds;
      row.least = std::min(row.least, seconds);
      if (seconds > row.most) {
        row.most = seconds;
        row.slowest = profile["rank"];
      }
      row.flops += span["flops"].get<double>();
      row.bytes += span["bytes"].get<double>();
    }
  }
  std::vector<std::pair<std::string, Row>> order(rows.begin(), rows.end());
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.second.sum > b.second.sum; });
  std::string text = fmt::format("{}, {}, {:.2f} s\n", Count(static_cast<int64_t>(profiles.size()), "rank"),
                                 Count(profiles[0]["steps"].get<int64_t>(), "step"), wall);
  text += fmt::format("  {:<32} {:>8} {:>8} {:>8} {:>7} {:>6} {:>9} {:>8}\n", "span", "mean s", "min s", "max s",
                      "share", "max at", "GFLOP/s", "GB/s");
  double covered = 0, stalled = 0, transferring = 0;
  for (const auto& [name, row] : order) {
    covered += row.sum / ranks;
    if (name.starts_with("stall.")) stalled += row.sum / ranks;
    if (name.starts_with("comm.")) transferring += row.sum / ranks;
    text += fmt::format("  {:<32} {:>8.3f} {:>8.3f} {:>8.3f} {:>6.1f}% {:>6} {:>9.2f} {:>8.2f}\n", name,
                        row.sum / ranks, row.least, row.most, 100 * row.sum / ranks / wall, row.slowest,
                        row.flops / row.sum * 1e-9, row.bytes / row.sum * 1e-9);
  }
  // On a GPU transfers run beside kernels: then the spans are longer than the wall time.
  const double rest = wall - covered;
  text += fmt::format("  {:<32} {:>8.3f} {:>8} {:>8} {:>6.1f}%\n", rest < 0 ? "(overlapping)" : "(outside spans)",
                      std::abs(rest), "", "", 100 * std::abs(rest) / wall);
  if (rows.contains("graph")) {
    return text + "  exposed communication: not seen within graphs; runtime.graphs = OFF shows it\n";
  }
  // On a CPU every transfer is.
  const double exposed = gpu ? stalled : transferring;
  text += fmt::format("  exposed communication: {:.3f} s of {:.3f} s of transfers, {:.1f}% of the time\n", exposed,
                      transferring, 100 * exposed / wall);
  return text;
}

void WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (!file.flush()) Fail(ExitCode::kIo, "{}: cannot be written: {}", path, std::strerror(errno));
}

}  // namespace

std::string WriteReport(Communicator& world, int cp, DeviceKind device, const std::string& folder, double seconds,
                        int64_t steps) {
  const std::string own = OwnProfile(world.rank(), cp, seconds, steps).dump(1);
  const std::string path = folder + "/profile";
  std::error_code error;
  std::filesystem::create_directories(path, error);
  WriteText(fmt::format("{}/rank{:05}.json", path, world.rank()), own + "\n");

  std::vector<json> profiles;
  for (const std::string& text : GatherTexts(world, own)) profiles.push_back(json::parse(text));
  const std::string table = Table(profiles, device == DeviceKind::kGpu);
  if (world.rank() == 0) WriteText(path + "/report.txt", table);
  return table;
}

}  // namespace longspan
