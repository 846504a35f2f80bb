#include "launch/report/chrome_trace.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "runtime/count.h"
#include "runtime/error.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

using nlohmann::json;

enum Track { kPeriods = 1, kWork, kTransfers, kBeside };

Track TrackOf(proto::Kind kind) {
  if (kind == proto::TRANSFER_BESIDE) return kTransfers;
  return kind == proto::BESIDE ? kBeside : kWork;
}

const char* CategoryOf(proto::Kind kind) {
  switch (kind) {
    case proto::TRANSFER:
    case proto::TRANSFER_BESIDE:
      return "transfer";
    case proto::STALL:
    case proto::WAIT:
      return "wait";
    default:
      return "work";
  }
}

class Events {
 public:
  explicit Events(const std::string& path) : file_(path) { Text("{\"displayTimeUnit\":\"ms\",\"traceEvents\":["); }
  void Add(const json& event) {
    Text((count_++ > 0 ? ",\n" : "\n") + event.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  void Name(const char* what, int rank, int track, const std::string& name) {
    Add({{"ph", "M"}, {"name", what}, {"pid", rank + 1}, {"tid", track}, {"args", {{"name", name}}}});
  }
  void Span(int rank, int track, const std::string& name, const char* category, double begin, double seconds,
            const json& arguments) {
    Add({{"ph", "X"},
         {"name", name},
         {"cat", category},
         {"pid", rank + 1},
         {"tid", track},
         {"ts", 1e6 * begin},
         {"dur", 1e6 * seconds},
         {"args", arguments}});
  }
  void End() {
    Text("\n]}\n");
    file_.Commit();
  }
  int64_t count() const { return count_; }

 private:
  void Text(const std::string& text) { file_.Write(text.data(), std::ssize(text)); }

  OutputFile file_;
  int64_t count_ = 0;
};

void AddPeriod(const ProfilePeriod& period, int rank, Events* events) {
  const char* const what = period.what == proto::Period::STEP         ? "step"
                           : period.what == proto::Period::EVALUATION ? "evaluation after step"
                                                                      : "saves after step";
  events->Span(rank, kPeriods, fmt::format("{} {}", what, period.step), "period", period.begin, period.seconds,
               json::object());
  if (period.memory > 0) {
    events->Add({{"ph", "C"},
                 {"name", "memory"},
                 {"pid", rank + 1},
                 {"ts", 1e6 * period.begin},
                 {"args", {{"MiB", period.memory / (1 << 20)}}}});
  }
  for (const ProfileSpan& span : period.spans) {
    json arguments = {{"stage", span.stage}};
    if (span.pass != proto::NONE) arguments["pass"] = PassName(span.pass);
    if (span.layer >= 0) arguments["layer"] = span.layer;
    if (span.kind == proto::TRANSFER || span.kind == proto::TRANSFER_BESIDE) {
      if (const ProfileTransfer* const transfer = TransferOf(period, span)) {
        arguments["bytes"] = transfer->bytes;
        arguments["waiting_ms"] = 1e3 * transfer->wait;
      }
    }
    events->Span(rank, TrackOf(span.kind), span.name, CategoryOf(span.kind), span.begin, span.seconds, arguments);
  }
}

}  // namespace

std::string WriteChromeTrace(const ProfileData& data, const std::string& path) {
  int64_t steps = 0;
  for (const ProfilePeriod& period : data.ranks[0].periods) {
    if (!period.spans.empty()) ++steps;
  }
  if (steps == 0) {
    Fail(ExitCode::kData,
         "{}: no step is recorded in full detail; profile.first_step and profile.steps say which are, profile.level = "
         "FULL takes all",
         data.folder);
  }
  Events events(path);
  for (const RankProfile& rank : data.ranks) {
    events.Name("process_name", rank.rank, 0, fmt::format("rank {} ({})", rank.rank, rank.header.host()));
    events.Name("thread_name", rank.rank, kPeriods, "steps");
    events.Name("thread_name", rank.rank, kWork, rank.header.gpu() ? "compute stream" : "host");
    events.Name("thread_name", rank.rank, kTransfers, "transfers beside");
    events.Name("thread_name", rank.rank, kBeside, "work beside");
    for (const ProfilePeriod& period : rank.periods) {
      if (!period.spans.empty()) AddPeriod(period, rank.rank, &events);
    }
  }
  events.End();
  return fmt::format("{}: {} of {} in {} events; open it in ui.perfetto.dev", path, Count(steps, "step"),
                     Count(std::ssize(data.ranks), "rank"), events.count());
}

}  // namespace longspan
