// Files of tokens: llm.c's and nanoGPT's.
#include "launch/data/token_file.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_dataset.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longspan;
  static const FuzzFolder folder;
  const std::string path = folder.Write("tokens.bin", {data, size});
  Blaming([&] { Use(OpenLlmc(path, {})); });
  Blaming([&] { Use(OpenNanogpt(path, {.vocab = 60000, .separator = 7})); });
  return 0;
}
