// The C interface (nsa/nsa.h): arguments checked, errors made a status; the work is in the other files of this room.
#include "nsa/nsa.h"

#include <cmath>

#include "nsa/attention_context.h"
#include "nsa/cache.h"
#include "nsa/configuration.h"
#include "nsa/sequence.h"
#include "nsa/single_query.h"
#include "nsa/status.h"

namespace {

using namespace longspan;

void CheckOutputs(const NSAOutputs* outputs) { Required(outputs, "outputs", "an NSAOutputs"); }

Tensor SelectedView(const AttentionContext& context, const SequenceCall& call, const NSAOutputs& outputs) {
  if (outputs.selected == nullptr) return {};
  return context.View(outputs.selected, "selected", DType::kI32, {call.tokens(), context.groups, context.nsa.select});
}

// Bytes, or 0 when f() refuses.
template <typename F>
size_t Bytes(const char* call, const F& f) {
  int64_t bytes = 0;
  Guard(call, [&] { bytes = f(); });
  return static_cast<size_t>(bytes);
}

}  // namespace

const char* nsa_status_string(int status) {
  switch (status) {
    case NSA_SUCCESS:
      return "success";
    case NSA_ERROR_INVALID_ARGUMENT:
      return "invalid argument";
    case NSA_ERROR_NOT_INITIALIZED:
      return "not initialised";
    case NSA_ERROR_MISSING_WEIGHT:
      return "missing weight";
    case NSA_ERROR_LENGTH:
      return "too long";
    case NSA_ERROR_UNSUPPORTED:
      return "not supported";
    case NSA_ERROR_OUT_OF_MEMORY:
      return "out of memory";
    case NSA_ERROR_FILE:
      return "bad file";
    case NSA_ERROR_INTERNAL:
      return "internal error";
    default:
      return "unknown status";
  }
}

const char* nsa_last_error(void) { return LastError(); }

const char* nsa_version(void) { return NSA_VERSION; }

NSAConfig nsa_create_default_config(int32_t head_dim, int32_t num_heads) {
  NSAConfig config = {};
  config.block_length = 32;
  config.block_stride = 16;
  config.selection_block_size = 64;
  config.num_selected_blocks = 16;
  config.window_size = 512;
  config.head_dim = head_dim;
  config.num_heads = num_heads;
  config.scaling_factor = head_dim > 0 ? 1 / std::sqrt(static_cast<float>(head_dim)) : 0;
  config.num_groups = 1;
  config.num_initial_blocks = 1;
  config.num_local_blocks = 2;
  config.phi = NSA_PHI_MLP;
  config.dtype = NSA_FLOAT32;
  config.device = NSA_DEVICE_AUTO;
  config.max_length = 131072;
  config.max_batch = 16;
  return config;
}

int nsa_init(NSAContext* ctx, const NSAConfig* config) {
  return Guard("nsa_init", [&] {
    Required(ctx, "ctx", "an NSAContext")->impl = nullptr;
    const std::lock_guard lock(SetupMutex());
    auto context = std::make_unique<AttentionContext>(*Required(config, "config", "an NSAConfig"), false);
    context->Start();
    ctx->impl = context.release();
  });
}

void nsa_free(NSAContext* ctx) {
  if (ctx == nullptr || ctx->impl == nullptr) return;
  const std::lock_guard lock(SetupMutex());
  delete static_cast<AttentionContext*>(ctx->impl);
  ctx->impl = nullptr;
}

size_t nsa_get_workspace_size(const NSAConfig* config) {
  return Bytes("nsa_get_workspace_size",
               [&] { return AttentionContext(*Required(config, "config", "an NSAConfig"), true).bytes(); });
}

int nsa_set_weight(NSAContext* ctx, const char* name, const void* data, int32_t dtype, const int64_t* shape,
                   int32_t rank) {
  return Guard("nsa_set_weight", [&] {
    AttentionContext& context = AttentionContext::Of(ctx);
    Required(name, "name", "a weight's");
    Required(data, name, "host memory");
    if (rank < 1 || rank > Shape::kMaxRank) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "rank: expected 1 to {}, found {}", Shape::kMaxRank, rank);
    }
    const Shape dims(std::span(Required(shape, "shape", "the dimensions"), static_cast<size_t>(rank)));
    if (dtype < NSA_FLOAT32 || dtype > NSA_FLOAT64) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "dtype: expected {} to {}, found {}", int{NSA_FLOAT32}, int{NSA_FLOAT64},
             dtype);
    }
    context.SetWeight(name, Tensor(const_cast<void*>(data), TypeOf(dtype), DeviceKind::kCpu, dims));
  });
}

int nsa_load_weights(NSAContext* ctx, const char* path, const char* prefix) {
  return Guard("nsa_load_weights", [&] {
    AttentionContext::Of(ctx).LoadWeights(Required(path, "path", "a file's"), prefix ? prefix : "");
  });
}

int nsa_bind_weight(NSAContext* ctx, const char* name, const void* data) {
  return Guard("nsa_bind_weight", [&] {
    AttentionContext::Of(ctx).weights().Bind(Required(name, "name", "a weight's"), const_cast<void*>(data));
  });
}

int nsa_bind_gradient(NSAContext* ctx, const char* name, void* data) {
  return Guard("nsa_bind_gradient",
               [&] { AttentionContext::Of(ctx).weights().BindGradient(Required(name, "name", "a weight's"), data); });
}

int nsa_compute_attention(NSAContext* ctx, const float* query, const float* keys, const float* values, int32_t seq_len,
                          float* output, CUstream_st* stream) {
  return Guard("nsa_compute_attention", [&] {
    AttentionContext& context = AttentionContext::Of(ctx);
    if (seq_len < 1) Refuse(NSA_ERROR_INVALID_ARGUMENT, "seq_len: expected 1 or more, found {}", seq_len);
    if (seq_len > context.config.max_length) {
      Refuse(NSA_ERROR_LENGTH, "seq_len: expected at most max_length = {}, found {}", context.config.max_length,
             seq_len);
    }
    SingleQuery& single = context.single();
    context.Run(stream, [&] { single.Compute(query, keys, values, seq_len, output); });
  });
}

int nsa_update_window(NSAContext* ctx, const float* new_keys, const float* new_values, int32_t num_new,
                      CUstream_st* stream) {
  return Guard("nsa_update_window", [&] {
    AttentionContext& context = AttentionContext::Of(ctx);
    if (num_new < 0) Refuse(NSA_ERROR_INVALID_ARGUMENT, "num_new: expected 0 or more, found {}", num_new);
    SingleQuery& single = context.single();
    if (num_new > 0) context.Run(stream, [&] { single.Append(new_keys, new_values, num_new); });
  });
}

void nsa_reset(NSAContext* ctx) {
  Guard("nsa_reset", [&] {
    if (ctx != nullptr) AttentionContext::Of(ctx).single().Reset();
  });
}

size_t nsa_saved_size(const NSAContext* ctx, int64_t tokens) {
  return Bytes("nsa_saved_size", [&] { return SequenceCall::SavedBytes(AttentionContext::Of(ctx), tokens); });
}

size_t nsa_backward_workspace_size(const NSAContext* ctx, int64_t tokens) {
  return Bytes("nsa_backward_workspace_size",
               [&] { return SequenceCall::WorkspaceBytes(AttentionContext::Of(ctx), tokens); });
}

int nsa_forward(NSAContext* ctx, const NSAInputs* inputs, const NSAOutputs* outputs, CUstream_st* stream) {
  return Guard("nsa_forward", [&] {
    AttentionContext& context = AttentionContext::Of(ctx);
    CheckOutputs(outputs);
    SequenceCall call(context, inputs, outputs->saved);
    const Tensor out = call.OutView(outputs->out, "out"), selected = SelectedView(context, call, *outputs);
    context.Run(stream, [&] { call.Forward(out, selected); });
  });
}

int nsa_backward(NSAContext* ctx, const NSAInputs* inputs, const void* saved, const void* d_out,
                 const NSAGradients* gradients, void* workspace, CUstream_st* stream) {
  return Guard("nsa_backward", [&] {
    AttentionContext& context = AttentionContext::Of(ctx);
    SequenceCall call(context, inputs, saved);
    const Tensor d_out_view = call.OutView(d_out, "d_out");
    Required(gradients, "gradients", "an NSAGradients");
    AlignedMemory(workspace, "workspace", "nsa_backward_workspace_size bytes of device memory");
    if (gradients->d_gates != nullptr && inputs->gates == nullptr) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "d_gates: no gates were given: expected null");
    }
    context.Run(stream, [&] { call.Backward(d_out_view, *gradients, workspace); });
  });
}

int nsa_cache_init(NSAContext* ctx, NSACache* cache, int32_t num_pages) {
  return Guard("nsa_cache_init", [&] {
    Required(cache, "cache", "an NSACache")->impl = nullptr;
    AttentionContext& context = AttentionContext::Of(ctx);
    auto made = std::make_unique<Cache>(context, num_pages);
    made->Start();
    context.stream().Synchronize();
    cache->impl = made.release();
  });
}

void nsa_cache_free(NSACache* cache) {
  if (cache == nullptr) return;
  delete static_cast<Cache*>(cache->impl);
  cache->impl = nullptr;
}

int nsa_prefill(NSAContext* ctx, NSACache* cache, int32_t sequence, const NSAInputs* inputs, const int32_t* page_table,
                const NSAOutputs* outputs, CUstream_st* stream) {
  return Guard("nsa_prefill", [&] {
    AttentionContext& context = AttentionContext::Of(ctx);
    Cache& found = Cache::Of(cache, context);
    CheckOutputs(outputs);
    SequenceCall call(context, inputs, outputs->saved);
    if (inputs->doc_start != nullptr) {
      Refuse(NSA_ERROR_INVALID_ARGUMENT, "doc_start: a sequence of a cache is one document: expected null");
    }
    found.CheckPrefill(call, sequence, page_table);
    const Tensor out = call.OutView(outputs->out, "out"), selected = SelectedView(context, call, *outputs);
    context.Run(stream, [&] { found.Prefill(call, sequence, page_table, out, selected); });
  });
}

int nsa_decode(NSAContext* ctx, NSACache* cache, const NSADecodeStep* step, CUstream_st* stream) {
  return Guard("nsa_decode", [&] {
    AttentionContext& context = AttentionContext::Of(ctx);
    Cache& found = Cache::Of(cache, context);
    const Cache::Step checked = found.Check(step);
    context.Run(stream, [&] { found.Decode(checked); });
  });
}

int nsa_decode_device(NSAContext* ctx, NSACache* cache, const NSADeviceStep* step, CUstream_st* stream) {
  return Guard("nsa_decode_device", [&] {
    AttentionContext& context = AttentionContext::Of(ctx);
    Cache& found = Cache::Of(cache, context);
    const Cache::DeviceStep checked = found.Check(step);
    context.Run(stream, [&] { found.Decode(checked); });
  });
}
