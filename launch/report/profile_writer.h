// ProfileWriter: what a recorder hands on, as entries of the rank's file (launch/report/profile.proto): of each period
// its sums by stage, its transfers one by one and, in full detail, every span; sums by layer at every Write.
#pragma once

#include <map>
#include <string>
#include <unordered_map>

#include "launch/report/clocks.h"
#include "launch/report/link_speed.h"
#include "launch/report/profile_file.h"
#include "launch/report/recorder.h"
#include "runtime/gpu_monitor.h"
#include "runtime/memory.h"

namespace longspan {

class ProfileWriter {
 public:
  ProfileWriter(const std::string& path, bool append) : file_(path, append) {}

  void Begin(uint64_t session, int rank, int ranks, const Device& device, const RunFacts& facts);
  void Add(const ClockDifference& difference, double at);
  void Add(const LinkSpeed& link, double at);
  void Add(const PeriodRecord& period);
  void Add(const GpuReading& reading);
  void Add(const std::vector<HeldMemory>& held);  // an entry where something has never been as much
  void AddProblem(const std::string& text);
  void End();
  void Write();  // to the file; throws Error (io)

 private:
  struct Sum {
    int64_t count = 0;
    double seconds = 0, cpu = 0, flops = 0, bytes = 0;
    void Add(const TraceSpan& span);
    void Add(const Sum& other);
  };
  using Sums = std::unordered_map<uint64_t, Sum>;  // by cell
  using Cells = google::protobuf::RepeatedPtrField<proto::Cell>;

  static void AddCells(const Sums& sums, Cells* cells);
  void AddTransfer(const TraceSpan& span, int64_t* begin, proto::Transfers* transfers);
  void AddLayers();
  uint32_t NameOf(const char* text);
  uint32_t SiteOf(const TraceSpan& span);
  int64_t Since(double seconds) const;  // the beginning, in ns

  ProfileFile file_;
  double begin_ = 0;
  Sums layers_;
  int64_t layers_first_ = 0, layers_last_ = 0;
  std::unordered_map<const char*, uint32_t> name_of_;  // literals of one text may lie in several places
  std::map<std::string, uint32_t> names_;
  std::unordered_map<uint64_t, uint32_t> sites_;
  std::map<std::pair<bool, std::string>, int64_t> peaks_;  // of memory; by whether of the host, and use
  std::unordered_map<uint32_t, int64_t> groups_;           // the last sequence number of each
};

}  // namespace longspan
