// What `longspan eval` found, as text and as JSON:
//
//   {"checkpoint","step","device","dtype","sequences","sequence_length","loss","labels",
//    "positions":[{"begin","end","loss","labels"} ..], "datasets":[{"name","loss","labels"} ..],
//    "retrieval":[{"length","pairs","depth","found","asked"} ..]}
//
// loss is the mean over labels, null without any. Positions are those of tokens in their document: [begin,end).
// datasets are those of a blend, without one empty. Of
// retrieval, depth is from 0, the document's beginning, to 1, and pairs = 1 is a needle in a haystack.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longspan {

struct EvalReport {
  struct Loss {
    double sum = 0;
    int64_t labels = 0;
  };
  struct Positions {
    int64_t begin = 0, end = 0;
    Loss loss;
  };
  struct Dataset {
    std::string name;
    Loss loss;
  };
  struct Retrieval {
    int64_t length = 0, pairs = 0;
    double depth = 0;
    int64_t found = 0, asked = 0;
  };

  std::string checkpoint, device, dtype;
  int64_t step = 0;
  int64_t sequences = 0, sequence_length = 0;  // held out
  Loss loss;
  std::vector<Positions> positions;
  std::vector<Dataset> datasets;
  std::vector<Retrieval> retrieval;  // by pairs, then length, then depth; empty: not asked for
};

std::string EvalText(const EvalReport& report);
// The file appears when it is complete. Throws Error (io).
void WriteEvalJson(const std::string& path, const EvalReport& report);

}  // namespace longspan
