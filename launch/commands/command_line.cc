#include "launch/commands/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>

#include "launch/version.h"
#include "runtime/error.h"

namespace longspan {
namespace {

constexpr const char* kMainFooter = R"(
Examples:
  longspan data --output data/headers --include '*.h' /usr/include
  longspan train --config configs/quickstart.textproto --dry-run
  mpirun -np 4 longspan train --config configs/quickstart.textproto train.steps=50

Exit codes, the same on every rank:
   0  done                              75  stopped in good order, resumable
  64  wrong command line                76  communication stalled
  65  bad data, case or checkpoint      78  wrong configuration
  70  a rank failed                     79  loss or gradient not finite
  74  a file could not be read or written

Help on one command: longspan COMMAND --help)";

constexpr const char* kTrainFooter = R"(
Every key and its meaning: configs/run.proto

Examples:
  mpirun -np 4 longspan train --config configs/quickstart.textproto
  longspan train --config configs/nsa_1b.textproto parallel.cp=8 --dry-run --world 16
  longspan train --config configs/fibonacci.textproto model.attention=NSA,FULL --print-config)";

constexpr const char* kVerifyFooter = R"(
Compares the gradient of every parameter on one rank with that on parallel.cp ranks, and fails when one is off.

Example:
  mpirun -np 4 longspan verify --config configs/quickstart.textproto parallel.cp=4 parallel.dp=1)";

constexpr const char* kAttentionFooter = R"(
The result does not depend on the number of ranks, the layout or the exchange.

Example:
  mpirun -np 4 longspan attention --case case.safetensors --out result.safetensors)";

constexpr const char* kDataFooter = R"(
Every file becomes one document; train on the result with data.train=PREFIX.

Examples:
  longspan data --output data/headers --include '*.h' --include '*.hpp' /usr/include
  longspan data info data/headers)";

template <typename T>
CLI::Validator OneOf(const std::map<std::string, T>& names) {
  return CLI::CheckedTransformer(names, CLI::ignore_case).description("");
}

void AddConfig(CLI::App* command, ConfigOptions* options) {
  command->add_option("--config", options->path, "Configuration, a textproto; without it the defaults")
      ->group("Configuration")
      ->type_name("FILE");
  command->add_option("overrides", options->overrides, "Single keys over the file, such as model.layers=2")
      ->group("Configuration")
      ->type_name("KEY=VALUE");
  command->add_flag("--print-config", options->print_config, "Print every value with its source, and end")
      ->group("Without running");
}

void AddTrain(CLI::App* app, CommandLine* line) {
  CLI::App* command = app->add_subcommand("train", "Train a model");
  command->callback([line] { line->command = CommandLine::Command::kTrain; });
  AddConfig(command, &line->config);
  CLI::Option* dry_run =
      command->add_flag("--dry-run", line->config.dry_run, "Check everything, print the plan, and end");
  dry_run->group("Without running");
  command->add_option("--world", line->config.world, "Ranks to plan for (default: what parallel.cp and .dp say)")
      ->group("Without running")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 20).description(""))
      ->needs(dry_run);
  command->footer(kTrainFooter);
}

void AddVerify(CLI::App* app, CommandLine* line) {
  CLI::App* command = app->add_subcommand("verify", "Compare gradients on one rank and on many, before a long job");
  command->callback([line] { line->command = CommandLine::Command::kVerify; });
  AddConfig(command, &line->config);
  command->footer(kVerifyFooter);
}

void AddAttention(CLI::App* app, CommandLine* line) {
  AttentionOptions* options = &line->attention;
  CLI::App* command = app->add_subcommand("attention", "Run the NSA operator on tensors from a file");
  command->callback([line] { line->command = CommandLine::Command::kAttention; });
  command->add_option("--case", options->input, "Tensors and parameters, safetensors")->required()->type_name("FILE");
  command->add_option("--out", options->output, "Where the result goes, safetensors")->required()->type_name("FILE");
  command->add_option("--device", options->device, "cpu (default) or gpu")
      ->transform(OneOf<DeviceKind>({{"cpu", DeviceKind::kCpu}, {"gpu", DeviceKind::kGpu}}))
      ->type_name("DEVICE");
  command->add_flag("--share-gpu", options->share_gpu, "Several ranks may use one GPU: for tests");
  command->add_option("--layout", options->layout, "HEAD_TAIL (default) or CONTIGUOUS: how ranks share the sequence")
      ->transform(OneOf<LayoutKind>({{"HEAD_TAIL", LayoutKind::kHeadTail}, {"CONTIGUOUS", LayoutKind::kContiguous}}))
      ->type_name("LAYOUT");
  command
      ->add_option("--selected-exchange", options->selected_exchange,
                   "GATHER (default) or FETCH: how chosen blocks reach a rank")
      ->transform(OneOf<SelectedExchange>({{"GATHER", SelectedExchange::kGather}, {"FETCH", SelectedExchange::kFetch}}))
      ->type_name("EXCHANGE");
  command->footer(kAttentionFooter);
}

void AddData(CLI::App* app, CommandLine* line) {
  DataOptions* options = &line->data;
  CLI::App* command = app->add_subcommand("data", "Turn folders of text or code into a tokenised dataset");
  command->add_option("inputs", options->inputs, "Folders (searched to the bottom) and files")->type_name("PATH");
  command->add_option("--output", options->output, "Writes PREFIX.bin and PREFIX.idx")->type_name("PREFIX");
  command->add_option("--include", options->include, "Take only files that match (* ? [a-z]); may be repeated")
      ->allow_extra_args(false)
      ->type_name("PATTERN");
  command->add_option("--exclude", options->exclude, "Leave out files and folders that match; may be repeated")
      ->allow_extra_args(false)
      ->type_name("PATTERN");
  command->add_option("--tokenizer", options->tokenizer, "byte (default) or sentencepiece")->type_name("NAME");
  command->add_option("--model", options->model, "SentencePiece model")->type_name("FILE");
  command
      ->add_option("--validation-fraction", options->validation_fraction,
                   "Above 0: writes PREFIX_train and PREFIX_validation, split by documents")
      ->type_name("FRACTION");
  command->footer(kDataFooter);

  CLI::App* info = command->add_subcommand("info", "Print what a dataset holds");
  info->add_option("path", line->data_path, "A Megatron PREFIX, an llm.c or a nanoGPT file")
      ->required()
      ->type_name("PATH");
  command->callback(
      [line, info] { line->command = info->parsed() ? CommandLine::Command::kDataInfo : CommandLine::Command::kData; });
}

// What to try instead, for the mistakes that are easily made.
std::string Hint(const CLI::App& app, int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t dot = argument.find('.'), equal = argument.find('=');
    if (argument.starts_with("--") && dot < equal && equal != std::string::npos) {
      return fmt::format("keys are written without dashes: {}", argument.substr(2));
    }
  }
  const auto commands = app.get_subcommands();
  return fmt::format("longspan {}--help", commands.empty() ? "" : commands[0]->get_name() + " ");
}

}  // namespace

CommandLine ParseCommandLine(int argc, const char* const* argv) {
  CommandLine line;
  CLI::App app("Longspan trains transformers with Native Sparse Attention on long sequences, split over MPI ranks.",
               "longspan");
  app.set_version_flag("--version", Version());
  app.require_subcommand(0, 1);
  app.footer(kMainFooter);
  AddTrain(&app, &line);
  AddVerify(&app, &line);
  AddAttention(&app, &line);
  AddData(&app, &line);
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) line.text = app.help();
  } catch (const CLI::CallForHelp&) {
    line.command = CommandLine::Command::kText;
    line.text = app.help();
  } catch (const CLI::CallForVersion&) {
    line.command = CommandLine::Command::kText;
    line.text = Version() + "\n";
  } catch (const CLI::ParseError& error) {
    throw Error(ExitCode::kUsage, fmt::format("{}\nhint: {}", error.what(), Hint(app, argc, argv)));
  }
  return line;
}

}  // namespace longspan
