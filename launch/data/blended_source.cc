#include "launch/data/blended_source.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/count.h"
#include "runtime/error.h"

namespace longspan {
namespace {

class BlendedSource : public SequenceSource {
 public:
  explicit BlendedSource(std::vector<WeightedSource> sources) : sources_(std::move(sources)) {
    for (const WeightedSource& one : sources_) {
      parts_.push_back({one.name, size_, one.source->size(), one.weight});
      size_ += one.source->size();
    }
  }
  int64_t size() const override { return size_; }
  int64_t length() const override { return sources_.front().source->length(); }
  int64_t labels() const override {
    return std::accumulate(sources_.begin(), sources_.end(), int64_t{0},
                           [](int64_t sum, const WeightedSource& one) { return sum + one.source->labels(); });
  }
  std::vector<Part> parts() const override { return parts_; }

  void Fill(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets,
            std::span<int32_t> doc_start) const override {
    const auto next = std::upper_bound(parts_.begin(), parts_.end(), index,
                                       [](int64_t at, const Part& part) { return at < part.first; });
    const auto part = next - parts_.begin() - 1;
    sources_[part].source->Fill(index - parts_[part].first, tokens, targets, doc_start);
  }

  std::string Summary() const override {
    double weights = 0;
    for (const WeightedSource& one : sources_) weights += one.weight;
    std::string text = fmt::format("{} blended: {} of {}", Count(std::ssize(sources_), "dataset"),
                                   Count(size(), "sequence"), length());
    for (const WeightedSource& one : sources_) {
      text += fmt::format("\n             {:5.1f}% {}", 100 * one.weight / weights, one.source->Summary());
    }
    return text;
  }

 private:
  const std::vector<WeightedSource> sources_;
  std::vector<Part> parts_;
  int64_t size_ = 0;
};

}  // namespace

std::unique_ptr<SequenceSource> Blend(std::vector<WeightedSource> sources) {
  if (sources.empty()) return nullptr;
  if (sources.size() == 1) return std::move(sources.front().source);
  return std::make_unique<BlendedSource>(std::move(sources));
}

}  // namespace longspan
