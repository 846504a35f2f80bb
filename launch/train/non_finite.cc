#include "launch/train/non_finite.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <vector>

#include "kernels/host_copy.h"
#include "launch/job/world.h"
#include "parallel/comm/texts.h"

namespace longspan {
namespace {

// Of the table; -1 when all are finite.
int64_t LastNonFinite(Device& device, Stream& stream, const ParamTable& params) {
  for (int64_t i = std::ssize(params.params()); i-- > 0;) {
    const std::vector<float> values = HostValues<float>(device, stream, params.params()[i]->gradient);
    if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) return i;
  }
  return -1;
}

}  // namespace

std::string NameNonFinite(Job& job, Stream& stream, const ParamTable& params, double loss_sum) {
  const std::string own =
      fmt::format("{} {} {}", std::isfinite(loss_sum) ? 1 : 0, LastNonFinite(job.device(), stream, params), NodeName());
  struct Finding {
    bool loss = true;  // is finite
    int64_t param = -1;
    std::string node;
  };
  std::vector<Finding> all;
  int64_t first = -1;
  for (const std::string& text : GatherTexts(job.mesh().host_world(), own)) {
    std::istringstream said(text);
    Finding& finding = all.emplace_back();
    said >> finding.loss >> finding.param >> finding.node;
    first = std::max(first, finding.param);
  }
  const auto ranks = [&](const auto& meant) {
    std::vector<std::string> names;
    for (size_t rank = 0; rank < all.size(); ++rank) {
      if (meant(all[rank])) names.push_back(fmt::format("rank {} on {}", rank, all[rank].node));
    }
    return names.size() > 1 && names.size() == all.size() ? "all ranks" : fmt::format("{}", fmt::join(names, ", "));
  };
  std::vector<std::string> found;
  const std::string losses = ranks([](const Finding& finding) { return !finding.loss; });
  if (!losses.empty()) found.push_back("the loss of " + losses);
  if (first >= 0) {
    found.push_back(fmt::format("the gradient of {} of {} is the first of the backward", params.params()[first]->name,
                                ranks([&](const Finding& finding) { return finding.param == first; })));
  }
  if (found.empty()) {
    return "loss and gradients of every rank are finite when they are computed again: memory or a link has failed, or "
           "their sum is too large";
  }
  return fmt::format("not finite: {}", fmt::join(found, "; "));
}

}  // namespace longspan
