#include "launch/report/profile_writer.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <ctime>

namespace longspan {
namespace {

bool BeginsWith(const char* text, const char* begin) { return std::strncmp(text, begin, std::strlen(begin)) == 0; }

proto::Kind KindOf(const TraceSpan& span) {
  const bool beside = span.lane == Lane::kComm || span.lane == Lane::kBeside;
  if (span.transfer.size > 0) return beside ? proto::TRANSFER_BESIDE : proto::TRANSFER;
  if (beside) return proto::BESIDE;
  if (BeginsWith(span.name, "stall.") || BeginsWith(span.name, "memory.offload_stall")) return proto::STALL;
  if (BeginsWith(span.name, "data.") || BeginsWith(span.name, "checkpoint.")) return proto::WAIT;
  return proto::WORK;
}

// Bits: 16 free, 16 of 1 + layer, 24 of the stage, 4 of the pass, 4 of the kind.
constexpr int kLayerAt = 32, kNameAt = 48;
constexpr uint64_t kWithoutLayer = (uint64_t{1} << kLayerAt) - 1;

uint64_t CellKey(uint32_t stage, const TraceSpan& span) {
  return static_cast<uint64_t>(span.place.layer + 1) << kLayerAt | stage << 8 |
         static_cast<uint64_t>(span.place.pass) << 4 | static_cast<uint64_t>(KindOf(span));
}

uint64_t Ns(double seconds) { return static_cast<uint64_t>(std::max(0.0, std::round(seconds * 1e9))); }

proto::Period::What WhatOf(RunPeriod what) {
  return what == RunPeriod::kStep         ? proto::Period::STEP
         : what == RunPeriod::kEvaluation ? proto::Period::EVALUATION
                                          : proto::Period::CHECKPOINT;
}

double UnixSeconds() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

void ProfileWriter::Sum::Add(const TraceSpan& span) {
  ++count;
  seconds += span.seconds;
  cpu += span.cpu;
  flops += span.cost.flops;
  bytes += span.cost.bytes;
}

void ProfileWriter::Sum::Add(const Sum& other) {
  count += other.count;
  seconds += other.seconds;
  cpu += other.cpu;
  flops += other.flops;
  bytes += other.bytes;
}

int64_t ProfileWriter::Since(double seconds) const { return std::llround((seconds - begin_) * 1e9); }

void ProfileWriter::Begin(uint64_t session, int rank, int ranks, const Device& device, const RunFacts& facts) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  begin_ = WallSeconds();
  proto::Entry entry;
  proto::Header& header = *entry.mutable_header();
  header.set_session(session);
  header.set_rank(static_cast<uint32_t>(rank));
  header.set_ranks(static_cast<uint32_t>(ranks));
  header.set_dp(static_cast<uint32_t>(facts.dp));
  header.set_cp(static_cast<uint32_t>(facts.cp));
  header.set_dp_size(static_cast<uint32_t>(facts.dp_size));
  header.set_cp_size(static_cast<uint32_t>(facts.cp_size));
  header.set_host(host.data());
  header.set_device(device.name());
  header.set_gpu(device.kind() == DeviceKind::kGpu);
  header.set_version(facts.version);
  header.set_time(UtcTime());
  header.set_unix_seconds(UnixSeconds());
  header.set_begin(begin_);
  header.set_startup_seconds(facts.startup_seconds);
  header.set_first_step(facts.first_step);
  header.set_next_stage(facts.next_stage);
  header.set_step_flops(facts.step_flops);
  header.set_peak_flops(facts.peak_flops);
  file_.Add(entry);
}

void ProfileWriter::Add(const ClockDifference& difference, double at) {
  proto::Entry entry;
  proto::Clock& clock = *entry.mutable_clock();
  clock.set_begin(Since(at));
  clock.set_ahead(std::llround(difference.ahead * 1e9));
  clock.set_error(Ns(difference.error));
  file_.Add(entry);
}

void ProfileWriter::Add(const LinkSpeed& speed, double at) {
  if (speed.peer < 0) return;
  proto::Entry entry;
  proto::Link& link = *entry.mutable_link();
  link.set_begin(Since(at));
  link.set_peer(static_cast<uint32_t>(speed.peer));
  link.set_time(Ns(speed.seconds));
  link.set_bytes(static_cast<uint64_t>(speed.bytes));
  file_.Add(entry);
}

void ProfileWriter::Add(const PeriodRecord& record) {
  proto::Entry entry;
  proto::Period& period = *entry.mutable_period();
  period.set_what(WhatOf(record.what));
  period.set_step(record.step);
  period.set_begin(Since(record.begin));
  period.set_time(Ns(record.seconds));
  period.set_cpu(Ns(record.cpu));
  period.set_memory(static_cast<uint64_t>(std::max<int64_t>(0, record.memory_bytes)));
  const bool step = record.what == RunPeriod::kStep;
  Sums layers, sums;
  int64_t transfer_begin = period.begin(), span_begin = period.begin();
  for (const TraceSpan& span : record.spans) {
    layers[CellKey(NameOf(span.place.stage), span)].Add(span);
    if (span.transfer.size > 0) AddTransfer(span, &transfer_begin, period.mutable_transfers());
    if (!record.full) continue;
    proto::Spans& spans = *period.mutable_spans();
    spans.add_site(SiteOf(span));
    spans.add_begin(Since(span.begin) - span_begin);
    spans.add_time(Ns(span.seconds));
    span_begin = Since(span.begin);
  }
  for (const auto& [key, sum] : layers) {
    sums[key & kWithoutLayer].Add(sum);
    if (step) layers_[key].Add(sum);
  }
  AddCells(sums, period.mutable_cells());
  if (step) {
    if (layers_first_ == 0) layers_first_ = record.step;
    layers_last_ = record.step;
  }
  file_.Add(entry);
}

void ProfileWriter::Add(const GpuReading& reading) {
  proto::Entry entry;
  proto::Gpu& gpu = *entry.mutable_gpu();
  gpu.set_begin(Since(reading.at));
  gpu.set_sm_clock(static_cast<uint32_t>(reading.sm_clock));
  gpu.set_most_sm_clock(static_cast<uint32_t>(reading.most_sm_clock));
  gpu.set_memory_clock(static_cast<uint32_t>(reading.memory_clock));
  gpu.set_power(static_cast<float>(reading.power));
  gpu.set_power_limit(static_cast<float>(reading.power_limit));
  gpu.set_temperature(static_cast<uint32_t>(reading.temperature));
  gpu.set_held(reading.held);
  gpu.set_corrected(reading.corrected);
  gpu.set_uncorrected(reading.uncorrected);
  file_.Add(entry);
}

void ProfileWriter::Add(const std::vector<HeldMemory>& held) {
  bool grew = false;
  for (const HeldMemory& memory : held) {
    int64_t& peak = peaks_[{memory.host, memory.use}];
    grew = grew || memory.most > peak;
    peak = std::max(peak, memory.most);
  }
  if (!grew) return;
  proto::Entry entry;
  for (const auto& [key, bytes] : peaks_) {
    if (bytes == 0) continue;
    proto::Memory& memory = *entry.mutable_peak()->add_memory();
    memory.set_use(key.second);
    memory.set_host(key.first);
    memory.set_bytes(static_cast<uint64_t>(bytes));
  }
  file_.Add(entry);
}

void ProfileWriter::AddProblem(const std::string& text) {
  proto::Entry entry;
  entry.mutable_problem()->set_text(text);
  file_.Add(entry);
}

void ProfileWriter::AddCells(const Sums& sums, Cells* cells) {
  for (const auto& [key, sum] : sums) {
    proto::Cell* const cell = cells->Add();
    cell->set_layer(static_cast<uint32_t>(key >> kLayerAt));
    cell->set_stage(static_cast<uint32_t>(key >> 8 & 0xFFFFFF));
    cell->set_pass(static_cast<proto::Pass>(key >> 4 & 0xF));
    cell->set_kind(static_cast<proto::Kind>(key & 0xF));
    cell->set_count(static_cast<uint32_t>(sum.count));
    cell->set_time(Ns(sum.seconds));
    cell->set_cpu(Ns(sum.cpu));
    cell->set_flops(static_cast<float>(sum.flops));
    cell->set_bytes(static_cast<float>(sum.bytes));
  }
}

void ProfileWriter::AddTransfer(const TraceSpan& span, int64_t* begin, proto::Transfers* transfers) {
  const auto [last, added] = groups_.try_emplace(span.transfer.group, 0);
  if (added) {
    proto::Entry entry;
    entry.mutable_group()->set_id(span.transfer.group);
    entry.mutable_group()->set_size(static_cast<uint32_t>(span.transfer.size));
    file_.Add(entry);
  }
  transfers->add_site(SiteOf(span));
  transfers->add_group(span.transfer.group);
  transfers->add_sequence(span.transfer.sequence - last->second);
  transfers->add_begin(Since(span.begin) - *begin);
  transfers->add_time(Ns(span.seconds));
  transfers->add_bytes(static_cast<uint64_t>(span.cost.bytes));
  transfers->add_far(static_cast<uint64_t>(span.cost.far));
  last->second = span.transfer.sequence;
  *begin = Since(span.begin);
}

uint32_t ProfileWriter::NameOf(const char* text) {
  uint32_t& known = name_of_[text];
  if (known > 0) return known;
  const auto [place, added] = names_.try_emplace(text, static_cast<uint32_t>(names_.size() + 1));
  known = place->second;
  if (added) {
    proto::Entry entry;
    entry.mutable_name()->set_id(known);
    entry.mutable_name()->set_text(text);
    file_.Add(entry);
  }
  return known;
}

uint32_t ProfileWriter::SiteOf(const TraceSpan& span) {
  const uint32_t name = NameOf(span.name), stage = NameOf(span.place.stage);
  const uint64_t key = uint64_t{name} << kNameAt | CellKey(stage, span);
  const auto [place, added] = sites_.try_emplace(key, static_cast<uint32_t>(sites_.size() + 1));
  if (added) {
    proto::Entry entry;
    proto::Site* const site = entry.mutable_site();
    site->set_id(place->second);
    site->set_name(name);
    site->set_stage(stage);
    site->set_pass(static_cast<proto::Pass>(span.place.pass));
    site->set_kind(KindOf(span));
    site->set_layer(span.place.layer);
    file_.Add(entry);
  }
  return place->second;
}

void ProfileWriter::AddLayers() {
  if (layers_.empty()) return;
  proto::Entry entry;
  entry.mutable_layers()->set_first_step(layers_first_);
  entry.mutable_layers()->set_last_step(layers_last_);
  AddCells(layers_, entry.mutable_layers()->mutable_cells());
  layers_.clear();
  layers_first_ = 0;
  file_.Add(entry);
}

void ProfileWriter::End() {
  proto::Entry entry;
  entry.mutable_end()->set_begin(Since(WallSeconds()));
  AddLayers();
  file_.Add(entry);
}

void ProfileWriter::Write() {
  AddLayers();
  file_.Write();
}

}  // namespace longspan
