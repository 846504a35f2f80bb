// `longspan bench layer`: the NSA operator of one layer over ranks, with its exchanges: one document, random values,
// keys and values shared by the branches. What a rank holds depends on the place in the sequence alone, so that ranks,
// layout and exchange must not change which blocks are chosen.
#pragma once

#include <functional>

namespace CLI {  // NOLINT(readability-identifier-naming): CLI11's
class App;
}

namespace longspan {

// As Command::add does.
std::function<int()> AddBenchLayer(CLI::App& app);

}  // namespace longspan
