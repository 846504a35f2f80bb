// The manifest of a checkpoint: as it is given, and given a checksum, without which nothing else is looked at. What is
// read is written as text that reads as the same.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "launch/checkpoint/manifest.h"
#include "runtime/files/checksum.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longspan;
  using Json = nlohmann::ordered_json;
  const auto parse = [](const std::string& text) {
    Blaming([&] {
      const Manifest manifest = Manifest::Parse(text, "manifest.json");
      if (Manifest::Parse(manifest.Text(), "manifest.json") != manifest) std::abort();
    });
  };
  const std::string text(reinterpret_cast<const char*>(data), size);
  parse(text);
  const Json body = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (body.is_discarded()) return 0;
  const std::string written = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::string sum = ChecksumText(ChecksumOf(written.data(), std::ssize(written)));
  parse("{\"manifest\":" + written + ",\"xxh3\":\"" + sum + "\"}");
  return 0;
}
