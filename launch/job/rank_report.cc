#include "launch/job/rank_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "runtime/trace.h"

namespace longspan {
namespace {

using nlohmann::json;

constexpr double kSilent = 0.5;  // seconds, after which a driver that has not answered is worth a word
constexpr int64_t kSaved = 256;  // transfers of a file: what ranks compare

const char* PassName(Pass pass) {
  return pass == Pass::kForward ? " forward" : pass == Pass::kBackward ? " backward" : "";
}

// One that its rank has begun to overwrite is passed over.
std::optional<RankReport::Transfer> ReadRecord(const FlightRing::Record& record, int64_t number, double now) {
  if (record.number.load(std::memory_order_acquire) != number) return std::nullopt;
  const auto ago = [now](double then) { return then > 0 ? std::optional(now - then) : std::nullopt; };
  RankReport::Transfer transfer{.sequence = record.sequence,
                                .received = record.received,
                                .common = record.common,
                                .group = record.group,
                                .layer = record.layer,
                                .peer = record.peer,
                                .pass = static_cast<Pass>(record.pass),
                                .dtype = record.dtype,
                                .operation = record.operation.data(),
                                .stage = record.stage.data(),
                                .enqueued = now - record.enqueued,
                                .started = ago(record.started),
                                .done = ago(record.done)};
  std::atomic_thread_fence(std::memory_order_acquire);
  if (record.number.load(std::memory_order_relaxed) != number) return std::nullopt;
  return transfer;
}

json ToJson(const RankReport::Transfer& transfer) {
  const auto number = [](const std::optional<double>& x) { return x ? json(*x) : json(); };
  return {transfer.sequence,
          transfer.received,
          transfer.common,
          transfer.group,
          transfer.layer,
          transfer.peer,
          static_cast<int>(transfer.pass),
          static_cast<int>(transfer.dtype),
          transfer.operation,
          transfer.stage,
          transfer.enqueued,
          number(transfer.started),
          number(transfer.done)};
}

RankReport::Transfer TransferOf(const json& from) {
  const auto number = [](const json& x) { return x.is_null() ? std::nullopt : std::optional(x.get<double>()); };
  return {.sequence = from.at(0),
          .received = from.at(1),
          .common = from.at(2),
          .group = from.at(3),
          .layer = from.at(4),
          .peer = from.at(5),
          .pass = static_cast<Pass>(from.at(6).get<int>()),
          .dtype = static_cast<DType>(from.at(7).get<int>()),
          .operation = from.at(8),
          .stage = from.at(9),
          .enqueued = from.at(10),
          .started = number(from.at(11)),
          .done = number(from.at(12))};
}

}  // namespace

const RankReport::Transfer* RankReport::waiting() const {
  const auto found = std::find_if(transfers.begin(), transfers.end(), [&](const Transfer& transfer) {
    return !transfer.done && (transfer.started || groups[transfer.group].device);
  });
  return found != transfers.end() ? &*found : nullptr;
}

int64_t RankReport::Arrived(int group, int peer) const {
  int64_t arrived = 0;
  for (const Transfer& transfer : transfers) {
    const bool entered = transfer.started || groups[group].device;
    if (transfer.group == group && transfer.peer == peer && entered) arrived = std::max(arrived, transfer.sequence);
  }
  return arrived;
}

RankReport ReadRing(const FlightRing& ring) {
  const double now = WallSeconds();
  RankReport report{.rank = ring.rank,
                    .size = ring.size,
                    .pid = ring.pid,
                    .node = ring.node.data(),
                    .phase = ring.phase,
                    .phase_seconds = now - ring.phase_began,
                    .step = ring.step,
                    .groups = {},
                    .transfers = {},
                    .state = {},
                    .driver_silent = 0,
                    .threads = {}};
  const int64_t newest = ring.newest.load(std::memory_order_acquire);
  const int groups = ring.groups_used.load(std::memory_order_acquire);
  for (int i = 0; i < groups; ++i) {
    const FlightRing::Group& group = ring.groups[i];
    report.groups.push_back({group.id, group.instance, group.size, group.rank, group.device, group.arrived});
  }
  for (int64_t number = std::max<int64_t>(1, newest - FlightRing::kRecords + 1); number <= newest; ++number) {
    const auto transfer = ReadRecord(ring.records[number % FlightRing::kRecords], number, now);
    if (transfer && transfer->group < groups) report.transfers.push_back(*transfer);
  }
  return report;
}

void AddState(RankReport* report) {
  std::ifstream file(fmt::format("/proc/{}/stat", report->pid));
  std::string text;
  std::getline(file, text);
  const size_t name = text.rfind(')');  // "PID (NAME) STATE ..", and NAME may be anything
  const char state = name + 2 < text.size() ? text[name + 2] : 'X';
  report->gone = state == 'Z' || state == 'X';
  report->stopped = state == 'T' || state == 't';
  report->state = report->gone              ? "its process is gone"
                  : report->stopped         ? "its process is stopped by a signal"
                  : state == 'D'            ? "its process waits for a device or a file"
                  : report->threads.empty() ? "its process does not answer"
                                            : "";
}

std::string Describe(const RankReport::Transfer& transfer) {
  std::string text = transfer.operation;
  if (text.starts_with("comm.")) text.erase(0, 5);
  if (transfer.stage != "other") text += " of " + transfer.stage;
  if (transfer.layer >= 0) text += fmt::format(", layer {}{}", transfer.layer, PassName(transfer.pass));
  return fmt::format("{}, call {}", text, transfer.sequence);
}

std::string DescribeDriver(const RankReport& report) {
  if (report.driver_silent < kSilent) return "";
  return fmt::format("; its GPU's driver has not answered for {:.1f} s", report.driver_silent);
}

std::string DescribePhase(const RankReport& report) {
  switch (report.phase) {
    case HostPhase::kLoad:
      return "loading";
    case HostPhase::kStep:
      return fmt::format("in step {}", report.step);
    case HostPhase::kEvaluate:
      return fmt::format("evaluating after step {}", report.step);
    case HostPhase::kSave:
      return fmt::format("saving after step {}", report.step);
    case HostPhase::kConnect:
      return "connecting GPUs";
  }
  return "";
}

std::string SavedText(const RankReport& report, int by) {
  json groups = json::array(), transfers = json::array();
  for (const RankReport::Group& group : report.groups) {
    groups.push_back({group.id, group.instance, group.size, group.rank, group.device, group.arrived});
  }
  const int64_t count = std::ssize(report.transfers);
  for (int64_t i = std::max<int64_t>(0, count - kSaved); i < count; ++i)
    transfers.push_back(ToJson(report.transfers[i]));
  const json all = {{"by", by},
                    {"rank", report.rank},
                    {"size", report.size},
                    {"pid", report.pid},
                    {"node", report.node},
                    {"phase", static_cast<int>(report.phase)},
                    {"phase_seconds", report.phase_seconds},
                    {"step", report.step},
                    {"groups", groups},
                    {"transfers", transfers},
                    {"state", report.state},
                    {"stopped", report.stopped},
                    {"gone", report.gone},
                    {"driver_silent", report.driver_silent},
                    {"threads", report.threads}};
  return all.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::optional<SavedReport> LoadReport(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  try {
    const json all = json::parse(file);
    SavedReport saved{.report = {.rank = all.at("rank"),
                                 .size = all.at("size"),
                                 .pid = all.at("pid"),
                                 .node = all.at("node"),
                                 .phase = static_cast<HostPhase>(all.at("phase").get<int>()),
                                 .phase_seconds = all.at("phase_seconds"),
                                 .step = all.at("step"),
                                 .groups = {},
                                 .transfers = {},
                                 .state = all.at("state"),
                                 .stopped = all.at("stopped"),
                                 .gone = all.at("gone"),
                                 .driver_silent = all.at("driver_silent"),
                                 .threads = all.at("threads")},
                      .by = all.at("by")};
    for (const json& group : all.at("groups")) {
      saved.report.groups.push_back({group.at(0), group.at(1), group.at(2), group.at(3), group.at(4), group.at(5)});
    }
    for (const json& transfer : all.at("transfers")) {
      const RankReport::Transfer& read = saved.report.transfers.emplace_back(TransferOf(transfer));
      if (read.group < 0 || read.group >= std::ssize(saved.report.groups)) return std::nullopt;
    }
    return saved;
  } catch (const json::exception&) {
    return std::nullopt;  // of a file system that shows a file before it is whole
  }
}

std::string ReportText(const RankReport& report) {
  std::string text =
      fmt::format("rank {}/{} on {}, pid {}: {} for {:.3f} s{}{}{}\n{}", report.rank, report.size, report.node,
                  report.pid, DescribePhase(report), report.phase_seconds, report.state.empty() ? "" : "; ",
                  report.state, DescribeDriver(report), report.threads);
  text += fmt::format(
      "transfers, the last first; seconds ago\n{:>10} {:>10} {:>10} {:>8}/{:<4} {:>6} {:<16} {:<20} {:>5} {:<9} {:>14} "
      "{}\n",
      "enqueued", "started", "done", "group", "rank", "call", "operation", "stage", "layer", "pass", "received bytes",
      "type");
  const auto ago = [](const std::optional<double>& x) { return x ? fmt::format("{:.4f}", *x) : std::string("-"); };
  for (auto at = report.transfers.rbegin(); at != report.transfers.rend(); ++at) {
    const RankReport::Group& group = report.groups[at->group];
    text += fmt::format("{:>10} {:>10} {:>10} {:08x}/{:<4} {:>6} {:<16} {:<20} {:>5} {:<9} {:>14} {}\n",
                        ago(at->enqueued), ago(at->started), ago(at->done), group.id, group.rank, at->sequence,
                        at->operation, at->stage, at->layer, PassName(at->pass), at->received, DTypeName(at->dtype));
  }
  return text;
}

}  // namespace longspan
