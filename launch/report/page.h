// report.html: the report as one file that needs no network: launch/report/page/ is its text, style and script, beside
// Chart.js; what it shows is JSON within it:
//   {"report":{..},     report.json (launch/report/report.h)
//    "metrics":{"step":[..],"loss":[..],"tokens_per_second":[..],"memory":[..],"coverage":[..],"borrowed":[..],
//               "evaluations":[[STEP,LOSS],..],"positions":[[BEGIN,END,LOSS],..]},   of each a mean where steps are
//               many
//    "own":{"step":[..],"ranks":[{"rank":..,"seconds":[..]},..]},   own time of each step, of the ranks that stand out
//    "timeline":{"step":..,"seconds":..,"spans":[{"rank","beside","what","name","begin","seconds","bytes"},..]},
//    "clocks":[{"rank":..,"seconds":[..],"mhz":[..]},..]}   of the GPUs of those ranks, since the last start
// what: work, moving, waiting, data. The last step in full detail that all ranks have; adjacent spans of a stage are
// one.
#pragma once

#include <string>

#include "launch/report/report.h"

namespace longspan {

bool HasPages();  // false in a build without Chart.js

// Throws Error (io) in a build without Chart.js, saying how to come by the page.
std::string ReportPage(const ReportedRun& run);
// Of runs on different numbers of ranks (launch/report/scaling.h): its data is their JSON.
std::string ScalingPage(const std::string& json);

// As built (cmake/EmbedPage.cmake), "@DATA@" where data goes; null in a build without Chart.js (no_pages.cc).
const char* ReportTemplate();
const char* ScalingTemplate();

}  // namespace longspan
