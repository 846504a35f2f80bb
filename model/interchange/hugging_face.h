// Models in the layout of Hugging Face: a folder with config.json, model.safetensors (or shards and their
// model.safetensors.index.json) and, of ours, modeling_longspan.py, which says in PyTorch what the tensors mean.
//
//   ours                          theirs (model.layers.N. before those of layer N)        shape there
//   embedding.weight              model.embed_tokens.weight                               [X,D]
//   attention_norm.weight         input_layernorm.weight                                  [D]
//   attention.q.weight            self_attn.q_proj.weight                                 [H*K,D], transposed
//   attention.k.weight            self_attn.k_proj.weight; of NSA with SEPARATE branches  [G*K,D], transposed
//                                 k_cmp_proj, k_slc_proj, k_win_proj; v likewise
//   attention.q_norm.weight       self_attn.q_norm.weight; k_norm, k_cmp_norm, ..         [K]
//   attention.gate.weight, bias   self_attn.gate_proj.weight, bias                        [3H,D] transposed, [3H]
//   attention.phi_k.*, phi_v.*    self_attn.phi_k.*, phi_v.*                              as in phi.h
//   attention.o.weight            self_attn.o_proj.weight                                 [D,H*V], transposed
//   ffn_norm.weight               post_attention_layernorm.weight                         [D]
//   ffn.gate, up, down.weight     mlp.gate_proj, up_proj, down_proj.weight                [F,D] [F,D] [D,F], transposed
//   norm.weight                   model.norm.weight                                       [D]
//   head.weight                   lm_head.weight; with a tied head there is none          [X,D]
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/config.h"
#include "runtime/files/safetensors.h"

namespace longspan {

struct HuggingFaceName {
  std::string name;
  bool transposed = false;
};
HuggingFaceName HuggingFaceNameOf(const std::string& parameter);

// What config.json says.
struct HuggingFaceModel {
  std::string type;       // "longspan", or a dense one: "llama", "mistral", "qwen2", "qwen3"
  ModelConfig model;      // of a dense one attention is FULL, or WINDOW where it slides
  int64_t positions = 0;  // tokens of a sequence that it was trained on
  std::string tokenizer;  // of ours, as checkpoints have it: "byte ", "sentencepiece HASH"; "": not known
};

// The type that a model of FULL attention in every layer has among dense ones. Throws Error (usage) naming what is not
// so, or what else dense ones do not have.
std::string DenseType(const ModelConfig& model);
// Of ours, or of the dense type.
std::string HuggingFaceConfig(const HuggingFaceModel& model, const std::string& dtype);
// Reads FOLDER/config.json. Throws Error: (io), (data) naming the key that is missing or not what it should be, what of
// the model Longspan does not have, and the rules (model/config.h) that its values break.
HuggingFaceModel ReadHuggingFaceConfig(const std::string& folder);

// The tensors of such a folder.
class HuggingFaceTensors {
 public:
  // Throws Error (io, data).
  explicit HuggingFaceTensors(std::string folder);
  // Throws Error (data) unless there are so many layers and such an embedding: before a network of them is made.
  void RequireSizes(const ModelConfig& model) const;
  // Throws Error (data) naming a tensor that is of none of these parameters of ours, one of theirs that is missing, or
  // has another shape.
  void RequireJust(const std::map<std::string, Shape>& parameters) const;
  // The elements of a parameter of ours as F32, in its order and `shape` here. Throws Error (data) when there is no
  // such tensor, or of another shape or type.
  std::vector<float> Read(const std::string& parameter, const Shape& shape) const;
  std::string tokenizer_model() const;  // the bytes of tokenizer.model, a SentencePiece model; "": there is none

 private:
  Tensor Get(const std::string& name, const Shape& shape) const;

  const std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> places_;  // of files_
};

// `shape`, of a parameter of ours, as its tensor has it.
Shape ShapeThere(const HuggingFaceName& name, const Shape& shape);
// x [rows,columns] as [columns,rows].
std::vector<float> Transposed(const std::vector<float>& x, int64_t rows, int64_t columns);

}  // namespace longspan
