// How many tokens a second one core of the loader makes ready, from a dataset in memory to the batch of a rank:
// documents of very different lengths, u16. loader_bench [a Megatron PREFIX instead]
#include <fmt/format.h>

#include <random>

#include "launch/data/batches.h"
#include "launch/data/blended_source.h"
#include "launch/data/megatron.h"
#include "launch/data/packed_source.h"
#include "runtime/trace.h"
#include "tests/support/files.h"

namespace longspan {
namespace {

void WriteDataset(const std::string& prefix, int64_t tokens) {
  MegatronWriter writer(prefix, 50'257);
  std::mt19937 random(1);
  while (writer.tokens() < tokens) {
    std::vector<int32_t> ids(1 + random() % (1U << (4 + random() % 13)));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 50'257);
    writer.Append(ids);
    writer.EndDocument();
  }
  CommitAll(writer.Complete());
}

double TokensPerSecond(const SequenceSource& source, int cp) {
  const NsaConfig nsa;
  const Layout layout(LayoutKind::kHeadTail, source.length(), cp, nsa.select_block);
  BatchLoader loader(source, layout, 0, nsa, 1);
  Batch batch;
  loader.Load(0, batch);  // draws the epoch's order
  int64_t sequences = 0;
  const double begin = WallSeconds();
  while (WallSeconds() - begin < 1) loader.Load(++sequences, batch);
  return static_cast<double>(sequences * source.length()) / (WallSeconds() - begin);
}

int Run(const std::string& given) {
  const TempFolder folder;
  const std::string prefix = given.empty() ? folder / "set" : given;
  if (given.empty()) WriteDataset(prefix, int64_t{1} << 25);
  const auto dataset = std::make_shared<const Dataset>(OpenDataset(DataFormat::kMegatron, prefix));
  fmt::print("{} documents, {} tokens of {}\n", dataset->documents(), dataset->tokens(),
             TokenTypeName(dataset->type()));
  fmt::print("{:>8} {:>3}  {:<12} {:>14}\n", "sequence", "cp", "packing", "Mtokens/s/core");
  for (const int64_t length : {2048, 65536}) {
    for (const int cp : {1, 8}) {
      for (const PackingKind kind : {PackingKind::kSequential, PackingKind::kBestFit}) {
        for (const bool blended : {false, true}) {
          std::vector<WeightedSource> sources;
          for (int i = 0; i < (blended ? 4 : 1); ++i) {
            sources.push_back({"", 1.0 + i,
                               MakePackedSource(dataset, 0, dataset->documents(),
                                                {.length = length, .alignment = 64, .kind = kind})});
          }
          fmt::print("{:>8} {:>3}  {:<12} {:>14.1f}{}\n", length, cp,
                     kind == PackingKind::kSequential ? "SEQUENTIAL" : "BEST_FIT",
                     TokensPerSecond(*Blend(std::move(sources)), cp) * 1e-6, blended ? "  blend of 4" : "");
        }
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace longspan

int main(int argc, char** argv) { return longspan::Run(argc > 1 ? argv[1] : ""); }
