// Files of JSON lines, plain or compressed.
#include "launch/data/json_lines.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longspan;
  static const FuzzFolder folder;
  const std::string path = folder.Write("data.jsonl", {data, size});
  Blaming([&] {
    JsonLines lines(path, "text", int64_t{1} << 16);
    for (std::string text; lines.Next(&text);) {
    }
  });
  return 0;
}
