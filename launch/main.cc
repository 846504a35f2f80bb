// longspan: one binary, a command for each task. A command is a file of launch/commands and a name here.
#include "launch/commands/command.h"

namespace longspan {

extern const Command kTrain, kEval, kGenerate, kExport, kImport, kVerify, kAttention, kData, kTokenizer, kCheckpoint,
    kReport, kPlan, kBench;

}  // namespace longspan

int main(int argc, char** argv) {
  using namespace longspan;
  return RunProgram({kTrain, kEval, kGenerate, kExport, kImport, kVerify, kAttention, kData, kTokenizer, kCheckpoint,
                     kReport, kPlan, kBench},
                    argc, argv);
}
