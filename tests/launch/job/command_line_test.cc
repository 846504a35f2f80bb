// The command that goes on with a run.
#include "launch/job/command_line.h"

#include <gtest/gtest.h>

namespace longspan {
namespace {

TEST(CommandLine, IsTextForAShell) {
  EXPECT_EQ(ShellText({"a", "b=1,2", "/x/y-z"}), "a b=1,2 /x/y-z");
  EXPECT_EQ(ShellText({"", "a b", "it's", "$HOME"}), "'' 'a b' 'it'\\''s' '$HOME'");
}

TEST(CommandLine, GoesOn) {
  const std::vector<std::string> own = {"longspan", "train", "--overwrite", "name=a b"};
  EXPECT_EQ(ResumeCommand(own, {}, 1, "mpirun -np 1"), "longspan train 'name=a b' --resume");
  EXPECT_EQ(ResumeCommand(own, {"sshd"}, 4, "srun -n 4"), "srun -n 4 longspan train 'name=a b' --resume");
  EXPECT_EQ(ResumeCommand({"longspan", "train", "--resume"}, {}, 1, ""), "longspan train --resume");
  std::vector<std::string> parent = {"mpirun", "--hostfile", "my hosts", "-np", "4"};
  parent.insert(parent.end(), own.begin(), own.end());
  EXPECT_EQ(ResumeCommand(own, parent, 4, "mpirun -np 4"),
            "mpirun --hostfile 'my hosts' -np 4 longspan train 'name=a b' --resume");
}

TEST(CommandLine, OfThisProcess) {
  ASSERT_FALSE(ArgumentsOf("self").empty());
  EXPECT_NE(ArgumentsOf("self")[0].find("command_line_test"), std::string::npos);
  EXPECT_TRUE(ArgumentsOf("none").empty());
}

}  // namespace
}  // namespace longspan
