// Every key of a configuration, once: its path in configs/run.proto and its place in launch/config/run_config.h.
#pragma once

#include "launch/config/run_config.h"

namespace longspan {

// Calls visit("model.layers", config.model.layers) for each key, in the order of run.proto. `config` is a RunConfig or
// a const one; values are integers, doubles, bools, strings, enums and vectors of AttentionKind and of strings.
template <typename Config, typename Visitor>
void VisitKeys(Config& config, Visitor&& visit) {
  visit("name", config.name);
  visit("output", config.output);

  auto& model = config.model;
  visit("model.layers", model.layers);
  visit("model.hidden", model.hidden);
  visit("model.heads", model.heads);
  visit("model.kv_heads", model.kv_heads);
  visit("model.key_width", model.key_width);
  visit("model.value_width", model.value_width);
  visit("model.ffn", model.ffn);
  visit("model.vocab", model.vocab);
  visit("model.tied_head", model.tied_head);
  visit("model.qk_norm", model.qk_norm);
  visit("model.norm_eps", model.norm_eps);
  visit("model.attention", model.attention);

  auto& nsa = model.nsa;
  visit("model.nsa.block", nsa.block);
  visit("model.nsa.stride", nsa.stride);
  visit("model.nsa.select_block", nsa.select_block);
  visit("model.nsa.select", nsa.select);
  visit("model.nsa.init", nsa.init);
  visit("model.nsa.local", nsa.local);
  visit("model.nsa.window", nsa.window);
  visit("model.nsa.phi", nsa.phi);
  visit("model.nsa.phi_hidden", nsa.phi_hidden);
  visit("model.nsa.compress_rope", nsa.compress_rope);
  visit("model.nsa.kv_branches", nsa.kv_branches);

  auto& rope = model.rope;
  visit("model.rope.theta", rope.theta);
  visit("model.rope.scaling", rope.scaling);
  visit("model.rope.factor", rope.factor);
  visit("model.rope.original_max_position", rope.original_max_position);
  visit("model.rope.beta_fast", rope.beta_fast);
  visit("model.rope.beta_slow", rope.beta_slow);
  visit("model.rope.attention_factor", rope.attention_factor);

  auto& parallel = config.parallel;
  visit("parallel.cp", parallel.cp);
  visit("parallel.dp", parallel.dp);
  visit("parallel.layout", parallel.layout);
  visit("parallel.selected_exchange", parallel.selected_exchange);
  visit("parallel.transport", parallel.transport);
  visit("parallel.share_gpu", parallel.share_gpu);
  visit("parallel.transfer_processors", parallel.transfer_processors);

  auto& runtime = config.runtime;
  visit("runtime.device", runtime.device);
  visit("runtime.dtype", runtime.dtype);
  visit("runtime.graphs", runtime.graphs);

  auto& data = config.data;
  visit("data.format", data.format);
  visit("data.train", data.train);
  visit("data.validation", data.validation);
  visit("data.validation_fraction", data.validation_fraction);
  visit("data.sequence_length", data.sequence_length);
  visit("data.document_masks", data.document_masks);
  visit("data.seed", data.seed);
  visit("data.blend", data.blend);
  visit("data.packing", data.packing);
  visit("data.stages", data.stages);

  auto& optimizer = config.optimizer;
  visit("optimizer.learning_rate", optimizer.learning_rate);
  visit("optimizer.schedule", optimizer.schedule);
  visit("optimizer.warmup_steps", optimizer.warmup_steps);
  visit("optimizer.decay_steps", optimizer.decay_steps);
  visit("optimizer.final_fraction", optimizer.final_fraction);
  visit("optimizer.beta1", optimizer.beta1);
  visit("optimizer.beta2", optimizer.beta2);
  visit("optimizer.eps", optimizer.eps);
  visit("optimizer.weight_decay", optimizer.weight_decay);
  visit("optimizer.clip_norm", optimizer.clip_norm);

  auto& train = config.train;
  visit("train.steps", train.steps);
  visit("train.sequences_per_step", train.sequences_per_step);
  visit("train.eval_interval", train.eval_interval);
  visit("train.eval_sequences", train.eval_sequences);
  visit("train.log_interval", train.log_interval);
  visit("train.seed", train.seed);
  visit("train.max_minutes", train.max_minutes);
  visit("train.max_bad_steps", train.max_bad_steps);
  visit("train.max_z_score", train.max_z_score);
  visit("train.compare_interval", train.compare_interval);
  visit("train.recompute", train.keep.recompute);
  visit("train.offload", train.keep.offload);
  visit("train.record_selection", train.record_selection);
  visit("train.record_step", train.record_step);
  visit("train.frozen_selection", train.frozen_selection);
  visit("train.initial_weights", train.initial_weights);

  auto& checkpoint = config.checkpoint;
  visit("checkpoint.interval", checkpoint.interval);
  visit("checkpoint.minutes", checkpoint.minutes);
  visit("checkpoint.at_end", checkpoint.at_end);
  visit("checkpoint.keep_last", checkpoint.keep_last);
  visit("checkpoint.keep_every", checkpoint.keep_every);
  visit("checkpoint.background", checkpoint.background);
  visit("checkpoint.memory_interval", checkpoint.memory_interval);

  auto& profile = config.profile;
  visit("profile.level", profile.level);
  visit("profile.first_step", profile.first_step);
  visit("profile.steps", profile.steps);

  auto& comm = config.comm;
  visit("comm.timeout", comm.timeout);
  visit("comm.load_timeout", comm.load_timeout);
  visit("comm.evaluation_timeout", comm.evaluation_timeout);
  visit("comm.save_timeout", comm.save_timeout);
}

}  // namespace longspan
