#include "launch/checkpoint/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/error.h"
#include "runtime/files/checksum.h"

namespace longspan {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "longspan checkpoint";
constexpr int kVersion = 1;
constexpr int kDeepest = 8;
constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBf16, DType::kI32, DType::kI64, DType::kU8, DType::kU16};

// Paths may be no text.
std::string Dump(const Json& json, int indent) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

std::string SumOf(const Json& json) {
  const std::string text = Dump(json, -1);
  return ChecksumText(ChecksumOf(text.data(), static_cast<int64_t>(text.size())));
}

// Reads values out of JSON, each of which says where it stands when it is not what it should be.
class Value {
 public:
  Value(const Json& json, std::string place) : json_(json), place_(std::move(place)) {}

  Value operator[](const std::string& key) const {
    Require(json_.is_object() && json_.contains(key), fmt::format("a value of \"{}\"", key));
    return {json_[key], place_ + "." + key};
  }
  std::string Text() const {
    Require(json_.is_string(), "a text");
    return json_.get<std::string>();
  }
  int64_t Number() const {
    Require(json_.is_number_unsigned() && json_.get<uint64_t>() <= INT64_MAX, "a whole number from 0");
    return json_.get<int64_t>();
  }
  double Real() const {
    Require(json_.is_number(), "a number");
    return json_.get<double>();
  }
  bool Bool() const {
    Require(json_.is_boolean(), "true or false");
    return json_.get<bool>();
  }
  uint64_t Hex() const {
    const std::string text = Text();
    Require(text.size() == 16 && text.find_first_not_of("0123456789abcdef") == std::string::npos,
            "16 hexadecimal digits");
    return std::stoull(text, nullptr, 16);
  }
  template <typename Visit>
  void Each(const Visit& visit) const {  // visit(name, value)
    Require(json_.is_object(), "an object");
    for (const auto& [name, value] : json_.items()) visit(name, Value(value, place_ + "." + name));
  }
  template <typename Visit>
  void EachOf(const Visit& visit) const {  // visit(value)
    Require(json_.is_array(), "a list");
    for (size_t i = 0; i < json_.size(); ++i) visit(Value(json_[i], fmt::format("{}[{}]", place_, i)));
  }
  void Require(bool good, const std::string& expected) const {
    if (good) return;
    std::string found = Dump(json_, -1);
    if (found.size() > 60) found = found.substr(0, 60) + "..";
    Fail(ExitCode::kData, "{}: expected {}, found {}", place_, expected, found);
  }

 private:
  const Json& json_;
  const std::string place_;
};

Manifest::Entry ReadEntry(const Value& value, const Manifest& manifest) {
  Manifest::Entry entry;
  const std::string dtype = value["dtype"].Text();
  const auto type =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](DType each) { return dtype == DTypeName(each); });
  value["dtype"].Require(type != std::end(kTypes), "F32, F64, BF16, I32, I64, U8 or U16");
  entry.dtype = *type;
  int64_t count = 1;
  value["shape"].EachOf([&](const Value& dim) {
    entry.shape.push_back(dim.Number());
    dim.Require(!__builtin_mul_overflow(count, dim.Number(), &count), "a shape that fits in memory");
  });
  value["shape"].Require(entry.shape.size() <= Shape::kMaxRank, "at most four dimensions");
  int64_t end = 0;
  value["parts"].EachOf([&](const Value& part) {
    entry.parts.push_back({part["file"].Text(), part["begin"].Number(), part["end"].Number()});
    const Manifest::Part& read = entry.parts.back();
    part["file"].Require(manifest.files.contains(read.file), "a name of \"files\"");
    part.Require(read.begin == end && read.end >= end && read.end <= count,
                 fmt::format("elements from {} on, of {}", end, count));
    end = read.end;
  });
  value["parts"].Require(end == count, fmt::format("all {} elements", count));
  return entry;
}

RunState ReadState(const Value& value) {
  RunState state{.step = value["step"].Number(),
                 .sequences = value["sequences"].Number(),
                 .seconds = value["seconds"].Real(),
                 .graphs = value["graphs"].Bool(),
                 .numbers = {}};
  value["numbers"].Each([&](const std::string& name, const Value& list) {
    list.EachOf([&, &to = state.numbers[name]](const Value& number) { to.push_back(number.Real()); });
  });
  return state;
}

Manifest ReadManifest(const Value& value) {
  Manifest manifest;
  value["format"].Require(value["format"].Text() == kFormat, kFormat);
  value["version"].Require(value["version"].Number() == kVersion,
                           fmt::format("version {}: others are of other programs", kVersion));
  manifest.program = value["program"].Text();
  manifest.libraries = value["libraries"].Text();
  manifest.time = value["time"].Text();
  const Value world = value["world"];
  manifest.ranks = world["ranks"].Number();
  manifest.dp = world["dp"].Number();
  manifest.cp = world["cp"].Number();
  manifest.device = world["device"].Text();
  manifest.dtype = world["dtype"].Text();
  manifest.state = ReadState(value["state"]);
  value["data"].EachOf([&](const Value& claim) {
    manifest.data.push_back({claim["key"].Text(), claim["value"].Text(), claim["from"].Text()});
  });
  manifest.config = value["config"].Text();
  value["files"].Each([&](const std::string& name, const Value& file) {
    file.Require(!name.empty() && name.find('/') == std::string::npos && name[0] != '.', "a file of the folder");
    manifest.files[name] = {file["bytes"].Number(), file["xxh3"].Hex()};
  });
  value["tensors"].Each(
      [&](const std::string& name, const Value& entry) { manifest.tensors[name] = ReadEntry(entry, manifest); });
  return manifest;
}

}  // namespace

std::string Manifest::Text() const {
  Json claims = Json::array(), entries = Json::object(), sums = Json::object();
  for (const DataClaim& claim : data)
    claims.push_back({{"key", claim.key}, {"value", claim.value}, {"from", claim.from}});
  for (const auto& [name, entry] : tensors) {
    Json parts = Json::array();
    for (const Part& part : entry.parts)
      parts.push_back({{"file", part.file}, {"begin", part.begin}, {"end", part.end}});
    entries[name] = {{"dtype", DTypeName(entry.dtype)}, {"shape", entry.shape}, {"parts", parts}};
  }
  for (const auto& [name, file] : files) sums[name] = {{"bytes", file.bytes}, {"xxh3", ChecksumText(file.checksum)}};
  const Json json = {{"format", kFormat},
                     {"version", kVersion},
                     {"program", program},
                     {"libraries", libraries},
                     {"time", time},
                     {"world", {{"ranks", ranks}, {"dp", dp}, {"cp", cp}, {"device", device}, {"dtype", dtype}}},
                     {"state",
                      {{"step", state.step},
                       {"sequences", state.sequences},
                       {"seconds", state.seconds},
                       {"graphs", state.graphs},
                       {"numbers", state.numbers}}},
                     {"data", claims},
                     {"config", config},
                     {"tensors", entries},
                     {"files", sums}};
  return Dump({{"manifest", json}, {"xxh3", SumOf(json)}}, 1) + "\n";
}

Manifest Manifest::Parse(const std::string& text, const std::string& path) {
  // What is written again, for its checksum, is a call deeper for each level.
  const auto shallow = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > kDeepest) Fail(ExitCode::kData, "{}: expected a manifest, found {} objects in another", path, depth);
    return true;
  };
  const Json json = Json::parse(text, shallow, /*allow_exceptions=*/false);
  if (json.is_discarded()) Fail(ExitCode::kData, "{}: expected a manifest in JSON, found something else", path);
  const Value value(json, path + ": ");
  const Value body = value["manifest"];
  const std::string sum = value["xxh3"].Text();
  if (sum != SumOf(json["manifest"])) {
    Fail(ExitCode::kData, "{}: expected the checksum {}, found {}: the file was changed", path, sum,
         SumOf(json["manifest"]));
  }
  return ReadManifest(body);
}

void Manifest::Add(const Manifest& part) {
  files.insert(part.files.begin(), part.files.end());
  tensors.insert(part.tensors.begin(), part.tensors.end());
}

int64_t Manifest::bytes() const {
  int64_t sum = 0;
  for (const auto& [name, file] : files) sum += file.bytes;
  return sum;
}

}  // namespace longspan
