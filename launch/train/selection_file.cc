#include "launch/train/selection_file.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <limits>

namespace longspan {
namespace {

constexpr uint16_t kNone = std::numeric_limits<uint16_t>::max();

}  // namespace

std::string SelectionName(int64_t sequence, int64_t layer) {
  return fmt::format("sequences.{}.layers.{}.{}", sequence, layer, kSelected);
}

void SelectionWriter::Add(const std::string& name, std::span<const int32_t> selected, const Shape& shape) {
  LS_CHECK(static_cast<int64_t>(selected.size()) == shape.count(), "selection {}: {} blocks, expected {}", name,
           selected.size(), shape.ToString());
  const bool narrow =
      std::all_of(selected.begin(), selected.end(), [](int32_t block) { return block >= -1 && block < kNone; });
  // As 16 bits -1 is kNone.
  tensors_.emplace_back(name, narrow ? HostView(narrow_.emplace_back(selected.begin(), selected.end()).data(), shape)
                                     : HostView(wide_.emplace_back(selected.begin(), selected.end()).data(), shape));
}

void SelectionWriter::Write(const std::string& path) const { WriteSafetensors(path, tensors_, metadata_); }

SelectionFile::SelectionFile(const std::string& path, int64_t select_block)
    : file_(SafetensorsFile::Open(path)), select_block_(select_block) {
  const auto found = file_.metadata().find("select_block");
  const std::string length = found == file_.metadata().end() ? "none" : found->second;
  if (length != std::to_string(select_block)) {
    Fail(ExitCode::kData, "{}: metadata: select_block: expected blocks of {} tokens, found {}", path, select_block,
         length);
  }
  for (const std::string& name : file_.names()) {
    long long sequence = 0, layer = 0;
    if (std::sscanf(name.c_str(), "sequences.%lld.layers.%lld.", &sequence, &layer) == 2 &&
        name == SelectionName(sequence, layer)) {
      layers_[sequence].insert(layer);
    }
  }
}

std::string SelectionFile::Fingerprint() const {
  XXH64_hash_t hash = 0;
  for (const std::string& name : file_.names()) {
    const Tensor x = file_.Get(name);
    hash = XXH3_64bits_withSeed(name.data(), name.size(), hash);
    hash = XXH3_64bits_withSeed(x.data, x.bytes(), hash);
  }
  return fmt::format("{:016x}", hash);
}

std::vector<int64_t> SelectionFile::sequences() const {
  std::vector<int64_t> found;
  for (const auto& [sequence, layers] : layers_) found.push_back(sequence);
  return found;
}

std::vector<int64_t> SelectionFile::layers(int64_t sequence) const {
  const auto found = layers_.find(sequence);
  if (found == layers_.end()) return {};
  return {found->second.begin(), found->second.end()};
}

Shape SelectionFile::shape(const std::string& name) const {
  const Tensor x = file_.Get(name);
  if (x.shape.rank() != 3 || (x.dtype != DType::kU16 && x.dtype != DType::kI32)) {
    Fail(ExitCode::kData, "{}: {}: expected U16 or I32 [S,G,N], found {} {}", path(), name, DTypeName(x.dtype),
         x.shape.ToString());
  }
  return x.shape;
}

std::vector<int32_t> SelectionFile::Read(const std::string& name) const {
  const int64_t count = shape(name).count();
  const Tensor x = file_.Get(name);
  if (x.dtype == DType::kI32) return {x.As<int32_t>(), x.As<int32_t>() + count};
  std::vector<int32_t> selected(count);
  std::transform(x.As<uint16_t>(), x.As<uint16_t>() + count, selected.begin(),
                 [](uint16_t block) { return block == kNone ? -1 : block; });
  return selected;
}

std::vector<int32_t> SelectionFile::Read(const std::string& name, const Shape& expected,
                                         std::span<const int32_t> doc_start) const {
  const Shape found = shape(name);
  if (found != expected) {
    Fail(ExitCode::kData, "{}: {}: expected [S,G,N] = {}, found {}", path(), name, expected.ToString(),
         found.ToString());
  }
  std::vector<int32_t> selected = Read(name);
  CheckSelection(fmt::format("{}: {}", path(), name), selected, expected, doc_start, select_block_);
  return selected;
}

void CheckSelection(const std::string& what, std::span<const int32_t> selected, const Shape& shape,
                    std::span<const int32_t> doc_start, int64_t select_block) {
  const int64_t groups = shape[1], count = shape[2];
  for (int64_t row = 0; row < shape[0] * groups; ++row) {
    const int64_t t = row / groups;
    const int64_t first = (doc_start.empty() ? 0 : doc_start[t]) / select_block, last = t / select_block;
    for (int64_t i = 0; i < count; ++i) {
      const int32_t block = selected[row * count + i];
      const int32_t before = i > 0 ? selected[row * count + i - 1] : -1;
      const bool padding = block == -1, after_padding = i > 0 && before == -1;
      if (padding || (!after_padding && block > before && block >= first && block <= last)) continue;
      Fail(ExitCode::kData, "{}[{},{},{}] = {}: expected blocks {} to {} of the token's document, ascending, then -1{}",
           what, t, row % groups, i, block, first, last, i > 0 ? fmt::format("; before it stands {}", before) : "");
    }
  }
}

}  // namespace longspan
