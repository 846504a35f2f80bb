// Safetensors: the header, and every byte of every tensor that can be had.
#include "runtime/files/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longspan;
  static const FuzzFolder folder;
  const std::string path = folder.Write("case.safetensors", {data, size});
  Blaming([&] {
    const SafetensorsFile file = SafetensorsFile::Open(path);
    for (const std::string& name : file.names()) {
      Blaming([&] {
        const Tensor tensor = file.Get(name);
        volatile uint8_t sum = 0;
        for (int64_t i = 0; i < tensor.bytes(); ++i) sum = sum + static_cast<const uint8_t*>(tensor.data)[i];
      });
    }
  });
  return 0;
}
