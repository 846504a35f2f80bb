// The record of a dataset, PREFIX.json.
#include "launch/data/dataset_record.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longspan;
  static const FuzzFolder folder;
  const std::string path = folder.Write("data.json", {data, size});
  Blaming([&] { ReadDatasetRecord(path.substr(0, path.size() - 5)); });
  return 0;
}
