// The config.json of a model in Hugging Face's layout. What is read has tensors of a size, and is written as a file
// that reads as the same.
#include <algorithm>
#include <cstdlib>

#include "model/interchange/hugging_face.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longspan;
  static const FuzzFolder folder;
  const std::string path = folder.Write("config.json", {data, size}), parent = path.substr(0, path.rfind('/'));
  Blaming([&] {
    HuggingFaceModel read = ReadHuggingFaceConfig(parent);
    const ModelConfig& m = read.model;
    const int64_t phi = m.nsa.phi_hidden > 0 ? m.nsa.phi_hidden : 2 * std::max(m.key_width, m.value_width);
    for (const int64_t columns : {m.vocab, m.ffn, m.heads * m.key_width, m.heads * m.value_width}) {
      Shape({columns, m.hidden});
      Shape({int64_t{1} << 31, columns});  // of a sequence
    }
    for (const int64_t width : {m.key_width, m.value_width}) {
      Shape({m.nsa.block * width, phi});
      Shape({m.kv_heads, m.nsa.block * width, width});
    }
    read.type = "longspan";
    const std::string text = HuggingFaceConfig(read, "float32");
    folder.Write("config.json", {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    if (ReadHuggingFaceConfig(parent).model != read.model) std::abort();
  });
  return 0;
}
