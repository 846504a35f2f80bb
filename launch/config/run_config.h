// The configuration of a run as plain typed structs. Filled once by launch/config/config from a textproto and
// overrides, then immutable. The schema with the meaning of every key is configs/run.proto; names and defaults here are
// the same (a test compares). What a floor below is told stands there: kernels/attention/nsa_config.h,
// kernels/dense/rope_config.h, parallel/config.h, model/config.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "parallel/config.h"

namespace longspan {

enum class RuntimeDevice { kAuto, kCpu, kGpu };
enum class RuntimeType { kAuto, kF32, kBf16 };
enum class Graphs { kAuto, kOff, kOn };
enum class ProfileDetail { kSteps, kOff, kFull };
enum class PackingKind { kSequential, kBestFit };
enum class DataFormat { kMegatron, kLlmc, kNanogpt, kFibonacci, kRetrieval };

struct RuntimeConfig {
  RuntimeDevice device = RuntimeDevice::kAuto;  // AUTO: GPUs where there are any
  RuntimeType dtype = RuntimeType::kAuto;       // of weights and activations; AUTO: BF16 on a GPU, F32 on a CPU
  Graphs graphs = Graphs::kAuto;                // of forward and backward; AUTO: where they pay
  bool operator==(const RuntimeConfig&) const = default;
};

struct DataConfig {
  DataFormat format = DataFormat::kMegatron;
  std::string train;       // path prefix (MEGATRON: PREFIX.bin and PREFIX.idx) or file; not used where it is generated
  std::string validation;  // the same; empty = the last `validation_fraction` of the training documents
  double validation_fraction = 0.05;
  int64_t sequence_length = 2048;  // S
  bool document_masks = true;      // attention does not cross documents
  uint64_t seed = 1;               // order of the training sequences
  PackingKind packing = PackingKind::kSequential;
  std::vector<std::string> stages;  // of shorter sequences, before those of sequence_length (launch/config/stages.h)
  std::vector<std::string> blend;   // several datasets (launch/config/blend.h); then train and validation are empty
  bool operator==(const DataConfig&) const = default;
};

struct TrainConfig {
  int64_t steps = 200;
  int64_t sequences_per_step = 2;  // over all dp replicas; the rest of the division by dp is gradient accumulation
  int64_t eval_interval = 1000;    // steps between evaluations, the last is one; 0 = no evaluation
  int64_t eval_sequences = 8;      // 0 = no evaluation
  int64_t log_interval = 1;
  uint64_t seed = 1;               // of the initialisation
  double max_minutes = 0;          // that the program trains; 0 = to the last step
  int64_t max_bad_steps = 10;      // steps in a row whose updates are skipped, that end the run
  double max_z_score = 0;          // of loss or gradient norm, above which an update is skipped; 0 = any will do
  int64_t compare_interval = 100;  // steps between comparisons of the ranks' weights; 0 = none
  KeepConfig keep;                 // keys train.recompute and train.offload
  std::string record_selection;    // selection file to write; empty = none
  int64_t record_step = 0;         // whose sequences it is of; 0 = the last
  std::string frozen_selection;    // selection file that the layers take; empty = they choose
  std::string initial_weights;     // checkpoint, or run, that step 0 has its weights of; empty = they are drawn

  bool evaluates() const { return eval_interval > 0 && eval_sequences > 0; }
  bool operator==(const TrainConfig&) const = default;
};

struct CheckpointConfig {
  int64_t interval = 0;  // steps between saves; 0 = by time alone
  double minutes = 30;   // since the last save; 0 = by steps alone
  bool at_end = true;
  int64_t keep_last = 2;
  int64_t keep_every = 0;       // steps whose multiples stay; 0 = none
  bool background = true;       // training goes on while a save is written
  int64_t memory_interval = 0;  // steps between copies in memory; 0 = none
  bool operator==(const CheckpointConfig&) const = default;
};

struct ProfileConfig {
  ProfileDetail level = ProfileDetail::kSteps;
  int64_t first_step = 3;  // in full detail, counted from the start of the program
  int64_t steps = 3;       // so many; 0 = none
  bool operator==(const ProfileConfig&) const = default;
};

// Seconds that a rank may wait in one transfer; 0 = no limit.
struct CommConfig {
  double timeout = 600;
  double load_timeout = 3600;
  double evaluation_timeout = 1800;
  double save_timeout = 3600;
  bool operator==(const CommConfig&) const = default;
};

struct RunConfig {
  std::string name = "run";
  std::string output = "runs";  // the run's folder is output/name
  ModelConfig model;
  ParallelConfig parallel;
  RuntimeConfig runtime;
  DataConfig data;
  OptimizerConfig optimizer;
  TrainConfig train;
  CheckpointConfig checkpoint;
  ProfileConfig profile;
  CommConfig comm;

  SessionConfig session() const { return {model, parallel, data.sequence_length, train.keep}; }
  bool operator==(const RunConfig&) const = default;
};

}  // namespace longspan
