// How fast a device works, as `longspan bench nsa --json` found it, and how long planned work takes there.
#pragma once

#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "runtime/trace.h"

namespace longspan {

class DeviceRates {
 public:
  // Throws Error (io, data) naming the file and what of it was expected. Of the file's cases those count whose heads,
  // groups and widths are nearest to the model's, and of them that of the length nearest to a rank's tokens.
  DeviceRates(const std::string& path, const RunConfig& config);

  const std::string& device() const { return device_; }
  const std::string& measured_at() const { return measured_at_; }  // the sizes of the case
  double matmul_flops() const { return matmul_flops_; }            // a second

  // Of a span without transfers: the longer of its FLOPs and its bytes at the rates of its own stage of the bench;
  // products and the loss at the rate of large matrix products, all else at that of large copies.
  double Seconds(const std::string& span, const SpanTotal& work) const;

 private:
  struct Stage {
    std::string span;     // "attention.window_backward"
    double flops, bytes;  // a second
  };
  std::string device_, measured_at_;
  double matmul_flops_ = 0, copy_bytes_ = 0;
  std::vector<Stage> stages_;
};

}  // namespace longspan
