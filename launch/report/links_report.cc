#include "launch/report/links_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/count.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kSlowBandwidth = 1.0 / 3, kSlowLatency = 5, kLeastLateness = 100;  // us
constexpr size_t kMostSlow = 8;                                                     // that are listed
constexpr size_t kMatrixRanks = 16;

bool BetweenNodes(const LinkReport& found, const Link& link) { return found.nodes[link.from] != found.nodes[link.to]; }

struct LinkSpread {
  double least = 0, median = 0, most = 0;
};

LinkSpread SpreadOf(const std::vector<const Link*>& links, double Link::*member) {
  std::vector<double> values;
  for (const Link* link : links) values.push_back(link->*member);
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

std::vector<const Link*> OfKind(const LinkReport& found, bool between) {
  std::vector<const Link*> links;
  for (const Link& link : found.links) {
    if (BetweenNodes(found, link) == between) links.push_back(&link);
  }
  return links;
}

std::string Name(const LinkReport& found, const Link& link) {
  return fmt::format("rank {} ({}) -> rank {} ({})", link.from, found.nodes[link.from], link.to, found.nodes[link.to]);
}

std::string Matrix(const LinkReport& found) {
  const size_t ranks = found.nodes.size();
  std::string text = "  GB/s from \\ to";
  for (size_t to = 0; to < ranks; ++to) text += fmt::format(" {:>8}", to);
  for (size_t from = 0; from < ranks; ++from) {
    text += fmt::format("\n  {:>4} {:<10}", from, found.nodes[from]);
    for (size_t to = 0; to < ranks; ++to) {
      const auto link = std::find_if(found.links.begin(), found.links.end(), [&](const Link& x) {
        return x.from == static_cast<int>(from) && x.to == static_cast<int>(to);
      });
      text += link == found.links.end() ? fmt::format(" {:>8}", "-") : fmt::format(" {:>8.4g}", link->gbps);
    }
  }
  return text + "\n";
}

std::string SlowText(const LinkReport& found) {
  const std::vector<SlowLink> slow = SlowLinks(found);
  if (slow.empty()) return found.links.size() > 2 ? "  no link is far slower than others of its kind\n" : "";
  std::string text;
  for (size_t i = 0; i < std::min(slow.size(), kMostSlow); ++i) {
    const auto& [link, late, median] = slow[i];
    text += late ? fmt::format("  slow link: {}: {:.1f} us, the median of its kind is {:.1f}\n", Name(found, link),
                               link.us, median)
                 : fmt::format("  slow link: {}: {:.4g} GB/s, the median of its kind is {:.4g}\n", Name(found, link),
                               link.gbps, median);
  }
  if (slow.size() > kMostSlow) text += fmt::format("  and {} more\n", slow.size() - kMostSlow);
  const std::string place = SlowPlace(found, slow);
  if (!place.empty()) text += fmt::format("  all slow links are those of {}\n", place);
  return text;
}

}  // namespace

std::vector<SlowLink> SlowLinks(const LinkReport& found) {
  std::vector<SlowLink> slow;
  for (const bool between : {false, true}) {
    const std::vector<const Link*> links = OfKind(found, between);
    if (links.empty()) continue;
    const double gbps = SpreadOf(links, &Link::gbps).median, us = SpreadOf(links, &Link::us).median;
    for (const Link* link : links) {
      if (link->gbps < kSlowBandwidth * gbps) {
        slow.push_back({*link, false, gbps});
      } else if (link->us > kSlowLatency * us && link->us > us + kLeastLateness) {
        slow.push_back({*link, true, us});
      }
    }
  }
  std::stable_sort(slow.begin(), slow.end(), [](const SlowLink& a, const SlowLink& b) {
    return a.late != b.late ? b.late : a.link.gbps / a.median < b.link.gbps / b.median;
  });
  return slow;
}

std::string SlowPlace(const LinkReport& found, const std::vector<SlowLink>& slow) {
  if (slow.size() < 2) return "";
  std::set<std::string> nodes;
  std::set<int> ranks;
  for (const int rank : {slow[0].link.from, slow[0].link.to}) {
    nodes.insert(found.nodes[rank]);
    ranks.insert(rank);
  }
  for (const auto& [link, late, median] : slow) {
    std::erase_if(ranks, [&](int rank) { return rank != link.from && rank != link.to; });
    std::erase_if(
        nodes, [&](const std::string& node) { return node != found.nodes[link.from] && node != found.nodes[link.to]; });
  }
  const std::set<std::string> all(found.nodes.begin(), found.nodes.end());
  if (nodes.size() == 1 && all.size() > 1) return "node " + *nodes.begin();
  if (ranks.size() == 1) return fmt::format("rank {} ({})", *ranks.begin(), found.nodes[*ranks.begin()]);
  return "";
}

std::string LinkTable(const LinkReport& found) {
  if (found.nodes.size() < 2) return "  links: one rank, none to measure\n";
  std::string text = fmt::format("  {:<30} {:>6} {:>12} {:>12} {:>12} {:>12}\n", "links", "number", "median us",
                                 "median GB/s", "least", "most");
  for (const bool between : {false, true}) {
    const std::vector<const Link*> links = OfKind(found, between);
    if (links.empty()) continue;
    const LinkSpread us = SpreadOf(links, &Link::us), gbps = SpreadOf(links, &Link::gbps);
    text += fmt::format("  {:<30} {:>6} {:>12.1f} {:>12.4g} {:>12.4g} {:>12.4g}\n",
                        between ? "between nodes" : "within a node", links.size(), us.median, gbps.median, gbps.least,
                        gbps.most);
  }
  if (found.together) text += "  links of different ranks were measured at the same time\n";
  if (found.nodes.size() <= kMatrixRanks) text += Matrix(found);
  for (const Ring& ring : found.rings) {
    text += fmt::format("  {:<30} {:>6} {:>12.1f} {:>12.4g}\n", "ring of " + ring.group, ring.ranks.size(), ring.us,
                        ring.gbps);
  }
  return text + SlowText(found);
}

void WriteLinkReport(const std::string& path, const LinkReport& found) {
  Json json = {
      {"version", found.version},     {"device", found.device},
      {"transport", found.transport}, {"nodes", found.nodes},
      {"links", Json::array()},       {"rings", Json::array()},
      {"slow", Json::array()},        {"collectives", {{"calls", found.collective_calls}, {"wrong", found.wrong}}}};
  for (const Link& x : found.links) {
    json["links"].push_back({{"from", x.from}, {"to", x.to}, {"us", x.us}, {"gbps", x.gbps}, {"bytes", x.bytes}});
  }
  for (const Ring& x : found.rings) {
    json["rings"].push_back(
        {{"group", x.group}, {"ranks", x.ranks}, {"us", x.us}, {"gbps", x.gbps}, {"bytes", x.bytes}});
  }
  for (const auto& [link, late, median] : SlowLinks(found)) {
    Json slow = {{"from", link.from}, {"to", link.to}};
    slow[late ? "us" : "gbps"] = late ? link.us : link.gbps;
    slow["median"] = median;
    json["slow"].push_back(slow);
  }
  OutputFile file(path);
  const std::string text = json.dump(1) + "\n";
  file.Write(text.data(), static_cast<int64_t>(text.size()));
  file.Commit();
}

}  // namespace longspan
