/* Native Sparse Attention (arXiv 2502.11089) for programs that are not Longspan: C11, also C++. No header of CUDA's is
 * needed: a cudaStream_t is a struct CUstream_st*.
 *
 *   one query        nsa_compute_attention, nsa_update_window: one head, float, nothing else to set up
 *   whole sequences  nsa_forward, nsa_backward: to train, packed documents included
 *   decoding         nsa_prefill, nsa_decode: a cache of pages, a batch of sequences of different lengths
 *
 * Every query attends three times: to the compressed tokens (one for each block of block_length tokens, one every
 * block_stride, made by phi), to the num_selected_blocks blocks of selection_block_size tokens whose compressed tokens
 * it attends to most, and to the last window_size tokens; gates mix the three.
 *
 * Letters: S tokens of a sequence, T queries of a call, H query heads, G groups of heads that share keys and values, K
 * key width, V value width, l block_length, d block_stride, b selection_block_size, N num_selected_blocks. [S,G,K] is
 * row after row, without gaps. The branches are numbered 0 compressed, 1 selected, 2 window.
 *
 * Status. Calls that return int return NSA_SUCCESS (0) or another NSAStatus; nsa_last_error then says in a sentence
 * what was expected and what was found. A call that fails has changed nothing but outputs and, where it names them,
 * workspace.
 *
 * Memory and streams. "Device memory" is the context's device's: host memory for a CPU. A call never frees or keeps
 * what it is given, but for what nsa_bind_weight and nsa_bind_gradient name. On a GPU a call enqueues work behind what
 * `stream` holds (null: that device's default stream) and returns; later work of `stream` comes after it; the calling
 * thread's current device becomes the context's; addresses are multiples of 16. On a CPU `stream` is ignored and a call
 * is done when it returns. What a call needs besides its arguments is allocated by nsa_init and nsa_cache_init; scratch
 * of kernels grows in the first call of a size.
 *
 * Threads. One thread at a time may use a context and its caches; threads with contexts of their own do not disturb
 * each other. */
#ifndef NSA_NSA_H
#define NSA_NSA_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define NSA_API __attribute__((visibility("default")))
#else
#define NSA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

/* ---- Status ----------------------------------------------------------------------------------------------------- */

typedef enum {
  NSA_SUCCESS = 0,
  NSA_ERROR_INVALID_ARGUMENT = 1, /* null, a size or a configuration against the rules */
  NSA_ERROR_NOT_INITIALIZED = 2,  /* a context or cache without nsa_init, nsa_cache_init or tokens */
  NSA_ERROR_MISSING_WEIGHT = 3,   /* phi needs a weight that was neither set nor bound */
  NSA_ERROR_LENGTH = 4,           /* more tokens than max_length, max_batch or the pages hold */
  NSA_ERROR_UNSUPPORTED = 5,      /* not on this device, or not with this type */
  NSA_ERROR_OUT_OF_MEMORY = 6,
  NSA_ERROR_FILE = 7,    /* a file of weights that cannot be read or is not right */
  NSA_ERROR_INTERNAL = 8 /* a rule of the library's own is broken, or the machine failed */
} NSAStatus;

NSA_API const char* nsa_status_string(int status); /* a few words; never null; lives forever */
NSA_API const char* nsa_last_error(void); /* of the calling thread's last call that failed; "" when none did. Lives
                                             until that thread's next call that fails */
NSA_API const char* nsa_version(void);    /* "0.1.0" */

/* ---- Configuration and context ---------------------------------------------------------------------------------- */

/* A CPU has no BFLOAT16, a GPU no FLOAT64. */
typedef enum { NSA_FLOAT32 = 0, NSA_BFLOAT16 = 1, NSA_FLOAT64 = 2 } NSADType;
typedef enum { NSA_PHI_MLP = 0, NSA_PHI_LINEAR = 1, NSA_PHI_MEAN = 2 } NSAPhi;
enum { NSA_DEVICE_AUTO = -2, NSA_DEVICE_CPU = -1 }; /* 0 and above: that GPU. AUTO: GPU 0 where there is one */
enum { NSA_MAX_NEW_TOKENS = 16 };                   /* of one sequence in one nsa_decode */

typedef struct {
  int32_t block_length;         /* l, tokens of a compressed token; 32 */
  int32_t block_stride;         /* d, divides l and b; 16 */
  int32_t selection_block_size; /* b >= l; 64 */
  int32_t num_selected_blocks;  /* N, those always taken included; 16 */
  int32_t window_size;          /* w, the query's own token included; 512 */
  int32_t head_dim;             /* K */
  int32_t num_heads;            /* H */
  float scaling_factor;         /* of the scores; 1/sqrt(K) */
  int32_t value_dim;            /* V; 0 (the default) = head_dim */
  int32_t num_groups;           /* G, divides H; 1 */
  int32_t num_initial_blocks;   /* first blocks always taken; 1 */
  int32_t num_local_blocks;     /* last blocks always taken, the query's own included; 2 */
  int32_t phi;                  /* an NSAPhi; NSA_PHI_MLP */
  int32_t phi_hidden;           /* hidden width of the MLP; 0 (the default) = 2K for keys, 2V for values */
  int32_t shared_kv;  /* 0 (the default): each branch has keys and values of its own; 1: all read branch 0's */
  float rope_theta;   /* compressed keys are rotated at their first token's position; 0 (the default): not */
  int32_t dtype;      /* an NSADType: of weights, inputs and outputs; NSA_FLOAT32 */
  int32_t device;     /* NSA_DEVICE_AUTO */
  int64_t max_length; /* tokens of a sequence; 131072 */
  int32_t max_batch;  /* sequences of a cache; 16 */
} NSAConfig;

typedef struct {
  void* impl; /* null: not initialised */
} NSAContext;

/* The defaults above. Checks nothing: nsa_init does. */
NSA_API NSAConfig nsa_create_default_config(int32_t head_dim, int32_t num_heads);

/* Makes *ctx a context, which nsa_free frees; when it fails, ctx->impl is null. What *ctx was before is lost. */
NSA_API int nsa_init(NSAContext* ctx, const NSAConfig* config);
NSA_API void nsa_free(NSAContext* ctx); /* null, or a context that is not initialised, is fine. After its caches */

/* Bytes of device memory that nsa_init takes; 0 (and nsa_last_error) for a configuration against the rules. */
NSA_API size_t nsa_get_workspace_size(const NSAConfig* config);

/* ---- Weights ------------------------------------------------------------------------------------------------------
 *
 *   phi MLP      phi_k.position [l,K], phi_k.weight1 [l*K,M], phi_k.bias1 [M], phi_k.weight2 [M,K], phi_k.bias2 [K]
 *   phi LINEAR   phi_k.position [G,l,K], phi_k.weight [G,l*K,K]
 *   phi MEAN     none
 *   gates        gate.weight [K,3], gate.bias [3]
 *
 * phi_v.* likewise, V for K; M is phi_hidden. MLP: the l rows, each plus its position, are one row of l*K; times
 * weight1, plus bias1, GELU (erf), times weight2, plus bias2; the groups share the weights. LINEAR: the same row times
 * weight. Gates: g = sigmoid(q . weight + bias), for each head of each query, where a call is given none; not set:
 * gates are 1. */

/* Copies a weight from host memory: `data` of type `dtype` (an NSADType), which is rounded to the context's, `rank`
 * dimensions `shape`. Waits until the device has it. */
NSA_API int nsa_set_weight(NSAContext* ctx, const char* name, const void* data, int32_t dtype, const int64_t* shape,
                           int32_t rank);
/* Every weight of the list above that this context's phi has and every gate.* in a safetensors file, under
 * `prefix` + name (null: ""). All of phi's must be there. */
NSA_API int nsa_load_weights(NSAContext* ctx, const char* path, const char* prefix);
/* From now on the weight is what `data`, device memory of the context's type, holds when a call runs; null: not set. */
NSA_API int nsa_bind_weight(NSAContext* ctx, const char* name, const void* data);
/* From now on nsa_backward ADDS the weight's gradient to `data`, device memory of the gradients' type (NSAGradients),
 * in the weight's shape; null: not wanted. */
NSA_API int nsa_bind_gradient(NSAContext* ctx, const char* name, void* data);

/* ---- One query ----------------------------------------------------------------------------------------------------
 *
 * One head, one set of keys and values for all branches, NSA_FLOAT32, V = K. Where no weight of phi is set, compression
 * is the mean; where gate.* are not set, gates are 1. */

/* output [K] = attention of `query` [K] at position seq_len - 1 to `keys` and `values` [seq_len,K]; device memory. The
 * window is the last w tokens of the sequence, or, once nsa_update_window was called, what that holds. */
NSA_API int nsa_compute_attention(NSAContext* ctx, const float* query, const float* keys, const float* values,
                                  int32_t seq_len, float* output, struct CUstream_st* stream);
/* Appends `new_keys` and `new_values` [num_new,K] to the window, which holds the last w tokens of all that was
 * appended. */
NSA_API int nsa_update_window(NSAContext* ctx, const float* new_keys, const float* new_values, int32_t num_new,
                              struct CUstream_st* stream);
NSA_API void nsa_reset(NSAContext* ctx); /* empties the window: it is the sequence's again. Null is fine */

/* ---- Whole sequences: training ---------------------------------------------------------------------------------- */

typedef struct {
  int64_t tokens; /* S, 1 to max_length */
  const int32_t*
      doc_start;     /* [S] HOST memory: position of the first token of each token's document, a multiple of b; no
                        query sees another document. Null: one document. On a GPU reading it may wait for `stream` */
  const void* q;     /* [S,H,K] */
  const void* k[3];  /* [S,G,K] by branch; shared_kv: k[0] */
  const void* v[3];  /* [S,G,V] */
  const void* gates; /* [S,H,3], between 0 and 1, by branch; null: gate.*, or 1 */
} NSAInputs;

typedef struct {
  void* out;         /* [S,H,V] */
  void* saved;       /* nsa_saved_size bytes, at a multiple of 16, that nsa_backward reads */
  int32_t* selected; /* [S,G,N] the chosen blocks, ascending, padded with -1; may be null */
} NSAOutputs;

/* Float where the context's type is FLOAT32 or BFLOAT16, double where FLOAT64. Null: not wanted. All are overwritten.
 */
typedef struct {
  void* d_q;     /* [S,H,K] */
  void* d_k[3];  /* [S,G,K] by branch; shared_kv: d_k[0] is the sum of the three */
  void* d_v[3];  /* [S,G,V] */
  void* d_gates; /* [S,H,3]; only where gates were given */
} NSAGradients;

NSA_API size_t nsa_saved_size(const NSAContext* ctx, int64_t tokens); /* bytes; 0 (and nsa_last_error) on wrong use */
NSA_API size_t nsa_backward_workspace_size(const NSAContext* ctx, int64_t tokens);

NSA_API int nsa_forward(NSAContext* ctx, const NSAInputs* inputs, const NSAOutputs* outputs,
                        struct CUstream_st* stream);

/* Gradients of sum(d_out * out), d_out [S,H,V] of the context's type, given the choice of blocks. Inputs, weights and
 * `saved` are as nsa_forward took and left them; `workspace` is of nsa_backward_workspace_size bytes, at a multiple
 * of 16. */
NSA_API int nsa_backward(NSAContext* ctx, const NSAInputs* inputs, const void* saved, const void* d_out,
                         const NSAGradients* gradients, void* workspace, struct CUstream_st* stream);

/* ---- Decoding -----------------------------------------------------------------------------------------------------
 *
 * A cache has num_pages pages of b tokens, in which keys and values of the selected branch lie (shared_kv: of all), and
 * the compressed tokens that end in them; and for each of max_batch sequences a ring of the last tokens that the window
 * and the compression read. Which page holds which b tokens of a sequence is the caller's to say and to remember: a
 * page table. */

typedef struct {
  void* impl; /* null: not initialised */
} NSACache;

NSA_API int nsa_cache_init(NSAContext* ctx, NSACache* cache, int32_t num_pages);
NSA_API void nsa_cache_free(NSACache* cache); /* before its context; null or not initialised is fine */

/* Sequence `sequence` (0 to max_batch - 1) becomes the inputs' S tokens, one document: nsa_forward, and its keys,
 * values and compressed tokens go to the cache. page_table [ceil(S/b)] in device memory: the page of each b tokens. */
NSA_API int nsa_prefill(NSAContext* ctx, NSACache* cache, int32_t sequence, const NSAInputs* inputs,
                        const int32_t* page_table, const NSAOutputs* outputs, struct CUstream_st* stream);

/* T is the sum of new_tokens; rows of sequence i come after those of sequence i - 1. */
typedef struct {
  int32_t num_sequences;     /* 1 to max_batch */
  const int32_t* sequences;  /* [num_sequences] HOST memory: which, each once; null: 0, 1, 2, .. */
  const int64_t* lengths;    /* [num_sequences] HOST memory: tokens before this step. 0 begins a sequence; up to
                                NSA_MAX_NEW_TOKENS below what it holds takes tokens back (speculative decoding) */
  const int32_t* new_tokens; /* [num_sequences] HOST memory: 1 to NSA_MAX_NEW_TOKENS; null: 1 each */
  const int32_t* page_table; /* [num_sequences,page_table_width] device memory, row i of sequences[i]; entries past
                                ceil((length + new)/b) are not read. On a GPU entries are not checked */
  int32_t page_table_width;
  const void* q;     /* [T,H,K] */
  const void* k[3];  /* [T,G,K] by branch; shared_kv: k[0] */
  const void* v[3];  /* [T,G,V] */
  const void* gates; /* [T,H,3]; null: gate.*, or 1 */
  void* out;         /* [T,H,V] */
  int32_t* selected; /* [T,G,N], blocks of the sequence; may be null */
} NSADecodeStep;

/* Appends the new tokens and attends from them. Each output is what nsa_forward gives at that position; on a GPU but
 * for rounding, which may decide between blocks of nearly one score. */
NSA_API int nsa_decode(NSAContext* ctx, NSACache* cache, const NSADecodeStep* step, struct CUstream_st* stream);

/* A step whose numbers lie in device memory, so that a CUDA graph of it decodes on as sequences grow. */
typedef struct {
  int32_t num_sequences;     /* 1 to max_batch */
  int32_t new_tokens;        /* of each sequence: 1 to NSA_MAX_NEW_TOKENS; T is num_sequences times so many */
  const int32_t* sequences;  /* [num_sequences] device memory; null: 0, 1, 2, .. */
  int32_t* lengths;          /* [num_sequences] device memory: tokens before this step, to which it adds new_tokens */
  const int32_t* page_table; /* these, and what follows, as in NSADecodeStep */
  int32_t page_table_width;
  const void* q;
  const void* k[3];
  const void* v[3];
  const void* gates;
  void* out;
  int32_t* selected;
} NSADeviceStep;

/* nsa_decode, on a GPU alone, with head_dim up to 192 and value_dim up to 128, multiples of 8, and selection_block_size
 * up to 512; else NSA_ERROR_UNSUPPORTED. `stream` may be capturing: the graph then reads at each launch what lies
 * behind its pointers. Before the first capture make one call of the same sizes, which loads kernels and, where gates
 * are made of gate.*, finds scratch for them. Lengths are not checked: with the new tokens at most max_length and
 * page_table_width * b. A step launches work for sequences of max_length, the rest of which ends at once. Afterwards
 * nsa_decode takes the caller's lengths for what the cache's sequences hold. */
NSA_API int nsa_decode_device(NSAContext* ctx, NSACache* cache, const NSADeviceStep* step, struct CUstream_st* stream);

#ifdef __cplusplus
}
#endif

#endif
