// The configuration: a file, or, after a byte of zero, an override. What is read without a problem is written as text
// that reads as the same.
#include <cstdlib>

#include "launch/config/config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longspan;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t cut = text.find('\0');
  std::vector<std::string> overrides;
  if (cut != std::string::npos) overrides.push_back(text.substr(cut + 1));
  const LoadedConfig loaded = ParseConfig(text.substr(0, cut), "F", overrides, 4);
  if (!loaded.problems.empty()) return 0;
  if (ParseConfig(ConfigText(loaded.config), "F", {}, 4).config != loaded.config) std::abort();
  if (ParseConfig(SourceTable(loaded), "F", {}, 4).config != loaded.config) std::abort();
  return 0;
}
