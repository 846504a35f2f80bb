#include "parallel/comm/texts.h"

#include <numeric>

namespace longspan {

std::vector<std::string> GatherTexts(Communicator& group, const std::string& text) {
  const auto stream = MakeCpuDevice()->MakeStream("texts");
  const int64_t own = std::ssize(text);
  std::vector<int64_t> lengths(group.size());
  group.AllGather(*stream, HostView(&own, {1}), HostView(lengths.data(), {group.size()}));
  stream->Synchronize();

  std::string all(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}), ' ');
  group.AllGather(*stream, HostView(reinterpret_cast<const uint8_t*>(text.data()), {own}),
                  HostView(reinterpret_cast<uint8_t*>(all.data()), {std::ssize(all)}), lengths);
  stream->Synchronize();

  std::vector<std::string> texts;
  size_t at = 0;
  for (const int64_t length : lengths) {
    texts.push_back(all.substr(at, length));
    at += length;
  }
  return texts;
}

}  // namespace longspan
