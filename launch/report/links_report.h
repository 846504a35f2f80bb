// What `longspan verify --links` found, as a table and as JSON:
//
//   {"version","device","transport","nodes":[name by rank],
//    "links":[{"from","to","us","gbps","bytes"} ..],                    pairs, each way
//    "rings":[{"group","ranks":[..],"us","gbps","bytes"} ..],           all ranks to their successors at once
//    "slow":[{"from","to","gbps" or "us","median"} ..],                 links far below others of their kind
//    "collectives":{"calls","wrong"}}                                   wrong: "" or which
//
// us: of a small message, one way. gbps: GB/s of a message of `bytes`, the best of several.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

struct Link {
  int from = 0, to = 0;  // ranks
  double us = 0, gbps = 0;
  int64_t bytes = 0;
};

struct Ring {
  std::string group;  // "all", "cp 0", "dp 3"
  std::vector<int> ranks;
  double us = 0, gbps = 0;  // of its slowest rank
  int64_t bytes = 0;
};

struct SlowLink {
  Link link;
  bool late = false;  // by its latency, else by its bandwidth
  double median = 0;  // of links of its kind: within a node, or between nodes
};

struct LinkReport {
  std::string version, device, transport;
  std::vector<std::string> nodes;  // by rank
  std::vector<Link> links;
  bool together = false;  // links of different ranks were measured at the same time
  std::vector<Ring> rings;
  int64_t collective_calls = 0;
  std::string wrong;  // of the collectives; "" = nothing
};

// Those with less than a third of the median bandwidth of their kind, or five times its latency and 100 us more; the
// slowest first.
std::vector<SlowLink> SlowLinks(const LinkReport& found);
// The node or rank that all of them leave, reach, or both: "node n3"; "" when there is none.
std::string SlowPlace(const LinkReport& found, const std::vector<SlowLink>& slow);

std::string LinkTable(const LinkReport& found);
// The file appears when it is complete. Throws Error (io).
void WriteLinkReport(const std::string& path, const LinkReport& found);

}  // namespace longspan
