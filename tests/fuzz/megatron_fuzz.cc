// Megatron's PREFIX.idx and PREFIX.bin: the first two bytes say how many bytes, at the end, are those of .bin.
#include <algorithm>

#include "launch/data/megatron.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_dataset.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longspan;
  static const FuzzFolder folder;
  if (size < 2) return 0;
  const std::span<const uint8_t> rest(data + 2, size - 2);
  const size_t bin = std::min<size_t>(data[0] + 256 * data[1], rest.size());
  folder.Write("data.idx", rest.first(rest.size() - bin));
  const std::string path = folder.Write("data.bin", rest.last(bin));
  Blaming([&] { Use(OpenMegatron(path, {.vocab = 1000, .separator = {}})); });
  return 0;
}
