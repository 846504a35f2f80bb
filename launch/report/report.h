// Reports on a run, of the profiles that its ranks left or are still writing (launch/report/profile.proto).
//
// report.json, all numbers in SI units (seconds, bytes, FLOP) and, where not said otherwise, of a step:
//   {"version":1, "run":FOLDER, "program":.., "time":.., "running":BOOL, "ranks":N, "read":N, "problems":[TEXT,..],
//    "clock_error":.., "dp":.., "cp":.., "device":..,
//    "steps":{"first":..,"last":..,"count":..,"seen":..,"mean":..,"median":..},  seen: not run as CUDA graphs; the
//      breakdown, ranks, stages, layers, transfers and stragglers are theirs, where there are any
//    "flops":{"executed":..,"per_second":..,"peak_share":..,"dense_equivalent":..},  of all ranks; peak as measured
//    before the first step "breakdown":{"work","waiting","moving","data","other","hidden","step"},  mean of ranks; the
//    first five add up to step "rank":[{"rank","host", what breakdown has, "own","awaited","cpu"},..],
//    "stages":[{"stage","pass","layer","seconds":{"min","median","max","mean","imbalance","slowest",
//      "by_rank":[..]},"flops","bytes"},..],
//    "layers":[likewise by layer],
//    "transfers":[{"stage","pass","name","beside","calls","bytes","far","waiting","moving","exposed","bus_bandwidth"},..],
//      far: of the bytes, those from other nodes
//    "links":[{"from","to","newest","best"},..],  bytes a second of a message to the next rank
//    "selection":{"coverage","borrowed","step","layers":[{"layer","local","halo","remote","distinct_blocks",
//      "distinct_share","jaccard","hottest","union_2","union_4","union_8"},..]},  of train.record_selection; step 0:
//      none
//    "memory":[{"use","host","min","max"},..],  the most that a rank held at a time, over ranks: on its device by use,
//      "all of these" and in use (launch/report/summary.h), and page-locked on its host
//    "gpus":[{"rank","readings","sm_clock","lowest","most_sm_clock","memory_clock","power","power_limit","temperature",
//      "held","held_by","corrected","uncorrected"},..],  of ranks whose GPU's driver was asked: MHz, watts, degrees
//      Celsius; held: the part of the readings in which its clocks were held down
//    "plan":[{"what","unit","planned","measured"},..],  of one rank; empty where the run's configuration is not there
//    "stragglers":[{"rank","class","first_step","last_step","since_start","to_end","single","excess","ratio","saving",
//                   "saving_share","stage","pass","layer","stage_share","link","held_by"},..],
//    "ledger":{"total","startup","training","data","checkpoint","evaluation","lost","lost_steps","stopped","restarts",
//              "other"},  seconds of the whole run
//    "costs":[{"seconds","what","advice"},..]}
// launch/report/summary.h says what each is. Layer -1 is none or all.
#pragma once

#include <string>

#include "launch/report/metrics.h"
#include "launch/report/summary.h"

namespace longspan {

struct ReportedRun {
  ProfileData data;
  Summary summary;
  RunMetrics metrics;
};
ReportedRun ReadRun(const std::string& folder);          // throws Error (io) where there is no profile
void AddPlan(const PlannedRun& plan, ReportedRun* run);  // beside what was measured

std::string ReportText(const Summary& summary);  // lines of 120 columns at most
std::string ReportJson(const Summary& summary);

// Writes FOLDER/profile/report.txt, report.json and, where the program has pages, report.html; returns the text, behind
// it where the page is. Throws Error (io).
std::string WriteReport(const ReportedRun& run);
// Writes report.html alone, to `path` or, where it is empty, to its place in the run; returns where. Throws Error (io).
std::string WriteReportPage(const ReportedRun& run, const std::string& path);

}  // namespace longspan
