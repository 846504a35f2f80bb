// The command lines of processes: this one's, and the one that starts the same job again.
#pragma once

#include <string>
#include <vector>

namespace longspan {

// Of a process on this machine, "self" or its number; empty when that is not known.
std::vector<std::string> ArgumentsOf(const std::string& process);

// As a shell takes it: what is not plain stands in quotes.
std::string ShellText(const std::vector<std::string>& arguments);

// The command that goes on with a run whose processes have the arguments `own`, on as many ranks: with --resume instead
// of --overwrite. `parent` is what the process that started this one has: a launcher's (mpirun .. longspan ..) is taken
// as it is; where it is another, several ranks get a plain `launcher` of their number ("mpirun -np 4").
std::string ResumeCommand(const std::vector<std::string>& own, const std::vector<std::string>& parent, int ranks,
                          const std::string& launcher);

// The same of this process.
std::string ResumeCommand(int ranks);

}  // namespace longspan
