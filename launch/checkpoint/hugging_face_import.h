// From the layout of Hugging Face (model/interchange/hugging_face.h) to a checkpoint of step 0.
//
// A dense model becomes one of NSA whose logits are nearly its own as long as every block is selected (S <= n*b): each
// branch has the dense keys and values, the selected branch's gate is open, the others' are nearly shut, and phi is the
// mean of its rows, from which it learns.
#pragma once

#include <functional>
#include <string>

#include "launch/checkpoint/manifest.h"
#include "model/interchange/hugging_face.h"
#include "model/params.h"

namespace longspan {

// Writes `folder`/checkpoints/step-00000000 with a weight for each of `params`, which are those of `model`: the model
// that `from` has, but for attention and nsa where `from` is dense. `about` is what the manifest says besides tensors
// and files. Throws Error (data) naming a tensor that is missing, has another shape, or has no place in Longspan's
// models.
void ImportHuggingFace(const HuggingFaceTensors& tensors, const HuggingFaceModel& from, const ModelConfig& model,
                       const ParamTable& params, const std::string& folder, Manifest about,
                       const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace longspan
