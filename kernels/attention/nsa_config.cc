#include "kernels/attention/nsa_config.h"

#include "runtime/problem_list.h"

namespace longspan {
namespace {

bool GoodSizes(const NsaConfig& nsa, const std::string& prefix, ProblemList* problems) {
  bool good = true;
  const auto size = [&](const char* name, int64_t value, int64_t least) {
    good = problems->Size(prefix + name, value, least) && good;
  };
  size("block", nsa.block, 1);
  size("stride", nsa.stride, 1);
  size("select_block", nsa.select_block, 1);
  size("select", nsa.select, 1);
  size("init", nsa.init, 0);
  size("local", nsa.local, 0);
  size("window", nsa.window, 1);
  size("phi_hidden", nsa.phi_hidden, 0);
  return good;
}

}  // namespace

std::vector<std::string> Problems(const NsaConfig& nsa, const std::string& prefix) {
  ProblemList problems;
  if (!GoodSizes(nsa, prefix, &problems)) return problems.lines;
  if (nsa.block % nsa.stride != 0) {
    problems.Add("{0}stride = {1} and {0}block = {2} disagree: the stride must divide the block; set {0}block to {3}",
                 prefix, nsa.stride, nsa.block, NearestMultiples(nsa.block, nsa.stride));
  }
  if (nsa.select_block % nsa.stride != 0) {
    problems.Add(
        "{0}stride = {1} and {0}select_block = {2} disagree: the stride must divide the selection block; set "
        "{0}select_block to {3}",
        prefix, nsa.stride, nsa.select_block, NearestMultiples(nsa.select_block, nsa.stride));
  }
  if (nsa.block > nsa.select_block) {
    problems.Add(
        "{0}block = {1} and {0}select_block = {2} disagree: a compressed token may not be longer than a selection "
        "block; set {0}block to {2} or less",
        prefix, nsa.block, nsa.select_block);
  }
  if (nsa.select < nsa.init + nsa.local) {
    problems.Add(
        "{0}select = {1} and {0}init + {0}local = {2} disagree: the blocks that are always taken must fit; set "
        "{0}select to {2} or more",
        prefix, nsa.select, nsa.init + nsa.local);
  }
  return problems.lines;
}

}  // namespace longspan
