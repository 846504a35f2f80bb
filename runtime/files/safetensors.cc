// Reading treats the file as hostile: every number is checked before it is used.
#include "runtime/files/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/error.h"
#include "runtime/files/checksum.h"
#include "runtime/files/output_file.h"

namespace longspan {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxHeader = 100'000'000;
constexpr const char* kMetadata = "__metadata__";

// Bits of one element; 0 for a name the format does not know.
int64_t DTypeBits(const std::string& name) {
  static const std::map<std::string, int64_t> bits = {
      {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"BOOL", 8}, {"U8", 8},          {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16}, {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8},
      {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32}, {"U32", 32},        {"F32", 32},
      {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
  };
  const auto found = bits.find(name);
  return found == bits.end() ? 0 : found->second;
}

constexpr DType kReadable[] = {DType::kF32, DType::kF64, DType::kBf16, DType::kI32,
                               DType::kI64, DType::kU8,  DType::kU16};

// Parses JSON; refuses a key that stands twice in one object, and nesting deeper than a header has.
Json ParseHeader(const std::string& path, const char* begin, const char* end) {
  std::vector<std::set<std::string>> keys;
  const auto check = [&](int depth, Json::parse_event_t event, Json& value) {
    const bool opens = event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    if (opens && depth > 2) Fail(ExitCode::kData, "{}: the header is nested deeper than a tensor's entry", path);
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second) {
      Fail(ExitCode::kData, "{}: the header holds the key \"{}\" twice", path, value.get<std::string>());
    }
    return true;
  };
  try {
    return Json::parse(begin, end, check);
  } catch (const Json::exception& error) {
    Fail(ExitCode::kData, "{}: the header is not JSON: {}", path, error.what());
  }
}

// The member of an entry as a list of non-negative numbers.
std::vector<int64_t> Numbers(const std::string& path, const std::string& tensor, const Json& entry, const char* key) {
  const auto found = entry.find(key);
  const bool good =
      found != entry.end() && found->is_array() && std::all_of(found->begin(), found->end(), [](const Json& number) {
        return number.is_number_unsigned() && number.get<uint64_t>() <= INT64_MAX;
      });
  if (!good) Fail(ExitCode::kData, "{}: {}: expected \"{}\": [numbers from 0]", path, tensor, key);
  return found->get<std::vector<int64_t>>();
}

}  // namespace

struct SafetensorsParser {
  SafetensorsFile& out;
  const std::string& path = out.file_.path();
  const std::byte* data = nullptr;  // after the header
  int64_t data_bytes = 0;
  std::vector<std::pair<std::pair<int64_t, int64_t>, std::string>> spans = {};  // begin, end, name

  void Parse() {
    const int64_t size = out.file_.size();
    if (size < 8) Fail(ExitCode::kData, "{}: expected a header length of 8 bytes, found {} bytes in all", path, size);
    const auto header = out.file_.Read<uint64_t>(0);
    if (header > static_cast<uint64_t>(std::min(kMaxHeader, size - 8))) {
      Fail(ExitCode::kData, "{}: expected a header of at most {} bytes, found {} at byte 0", path,
           std::min(kMaxHeader, size - 8), header);
    }
    const char* text = reinterpret_cast<const char*>(out.file_.data()) + 8;
    if (header == 0 || *text != '{') Fail(ExitCode::kData, "{}: expected '{{' at byte 8", path);
    data = out.file_.data() + 8 + header;
    data_bytes = size - 8 - static_cast<int64_t>(header);

    const Json json = ParseHeader(path, text, text + header);
    for (const auto& [name, entry] : json.items()) name == kMetadata ? AddMetadata(entry) : AddTensor(name, entry);
    CheckCover();
  }

  void AddMetadata(const Json& entry) {
    if (!entry.is_object()) Fail(ExitCode::kData, "{}: {}: expected an object of strings", path, kMetadata);
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) Fail(ExitCode::kData, "{}: {}: expected a string for \"{}\"", path, kMetadata, key);
      out.metadata_[key] = value.get<std::string>();
    }
  }

  void AddTensor(const std::string& name, const Json& entry) {
    if (!entry.is_object()) Fail(ExitCode::kData, "{}: {}: expected {{dtype, shape, data_offsets}}", path, name);
    for (const auto& [key, value] : entry.items()) {
      if (key != "dtype" && key != "shape" && key != "data_offsets") {
        Fail(ExitCode::kData, "{}: {}: expected dtype, shape and data_offsets, found \"{}\"", path, name, key);
      }
    }
    const auto dtype = entry.find("dtype");
    const int64_t element = dtype != entry.end() && dtype->is_string() ? DTypeBits(dtype->get<std::string>()) : 0;
    if (element == 0) {
      Fail(ExitCode::kData, "{}: {}: expected a dtype of the format, found {}", path, name,
           dtype == entry.end() ? "none" : dtype->dump());
    }
    const std::vector<int64_t> shape = Numbers(path, name, entry, "shape");
    const std::vector<int64_t> offsets = Numbers(path, name, entry, "data_offsets");
    int64_t bits = element;
    for (const int64_t dim : shape) {
      if (__builtin_mul_overflow(bits, dim, &bits)) {
        Fail(ExitCode::kData, "{}: {}: the shape [{}] is too large", path, name, fmt::join(shape, ","));
      }
    }
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_bytes) {
      Fail(ExitCode::kData, "{}: {}: expected data_offsets [begin,end] within {} bytes of data, found [{}]", path, name,
           data_bytes, fmt::join(offsets, ","));
    }
    if (bits % 8 != 0 || offsets[1] - offsets[0] != bits / 8) {
      Fail(ExitCode::kData, "{}: {}: {} [{}] needs {} bits, data_offsets [{}] hold {} bytes", path, name,
           dtype->get<std::string>(), fmt::join(shape, ","), bits, fmt::join(offsets, ","), offsets[1] - offsets[0]);
    }
    const std::byte* bytes = data + offsets[0];
    if (reinterpret_cast<uintptr_t>(bytes) % std::max<int64_t>(element / 8, 1) != 0) {
      out.aligned_.push_back(std::make_unique<std::byte[]>(bits / 8));
      bytes = static_cast<const std::byte*>(std::memcpy(out.aligned_.back().get(), bytes, bits / 8));
    }
    out.entries_[name] = {dtype->get<std::string>(), shape, bytes, bits / 8};
    out.names_.push_back(name);
    spans.push_back({{offsets[0], offsets[1]}, name});
  }

  // Together the tensors are the data: sorted, each begins where the one before it ends.
  void CheckCover() {
    std::sort(spans.begin(), spans.end());
    int64_t end = 0;
    for (const auto& [span, name] : spans) {
      if (span.first != end) {
        Fail(ExitCode::kData, "{}: {}: {} at data byte {}: expected it to begin at {}", path, name,
             span.first < end ? "overlap" : "hole", span.first, end);
      }
      end = span.second;
    }
    if (end != data_bytes) {
      Fail(ExitCode::kData, "{}: the tensors end at data byte {}, the file at {}", path, end, data_bytes);
    }
  }
};

SafetensorsFile SafetensorsFile::Open(const std::string& path) {
  SafetensorsFile result;
  result.file_ = MappedFile(path);
  SafetensorsParser{result}.Parse();
  return result;
}

Tensor SafetensorsFile::Get(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    Fail(ExitCode::kData, "{}: expected a tensor \"{}\", found: {}", path(), name, fmt::join(names_, ", "));
  }
  const Entry& entry = found->second;
  const auto dtype = std::find_if(std::begin(kReadable), std::end(kReadable),
                                  [&](DType candidate) { return entry.dtype == DTypeName(candidate); });
  if (dtype == std::end(kReadable)) {
    Fail(ExitCode::kData, "{}: {}: expected F32, F64, BF16, I32, I64, U8 or U16, found {}", path(), name, entry.dtype);
  }
  if (entry.shape.size() > Shape::kMaxRank) {
    Fail(ExitCode::kData, "{}: {}: expected at most {} dimensions, found [{}]", path(), name, Shape::kMaxRank,
         fmt::join(entry.shape, ","));
  }
  return Tensor(const_cast<std::byte*>(entry.data), *dtype, DeviceKind::kCpu, Shape(entry.shape));
}

WrittenFile WriteSafetensors(const std::string& path, std::vector<std::pair<std::string, Tensor>> tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    const int64_t size_a = DTypeSize(a.second.dtype), size_b = DTypeSize(b.second.dtype);
    return size_a != size_b ? size_a > size_b : a.first < b.first;
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  int64_t end = 0;
  for (const auto& [name, tensor] : tensors) {
    LS_CHECK(tensor.contiguous() && tensor.device == DeviceKind::kCpu,
             "safetensors: {} must be contiguous, on the host", name);
    LS_CHECK(!header.contains(name), "safetensors: the name {} stands twice", name);
    std::vector<int64_t> shape(tensor.shape.rank());
    for (int i = 0; i < tensor.shape.rank(); ++i) shape[i] = tensor.dim(i);
    header[name] = {
        {"dtype", DTypeName(tensor.dtype)}, {"shape", shape}, {"data_offsets", {end, end + tensor.bytes()}}};
    end += tensor.bytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');

  OutputFile file(path);
  Checksum checksum;
  int64_t bytes = 0;
  const auto write = [&](const void* data, int64_t count) {
    file.Write(data, count);
    checksum.Add(data, count);
    bytes += count;
  };
  const uint64_t length = text.size();
  write(&length, sizeof length);
  write(text.data(), static_cast<int64_t>(text.size()));
  for (const auto& [name, tensor] : tensors) write(tensor.data, tensor.bytes());
  file.Commit();
  return {bytes, checksum.value()};
}

}  // namespace longspan
