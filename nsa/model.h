/* A whole transformer with Native Sparse Attention, random or exported: logits of tokens, loss, gradients, AdamW,
 * decoding. C11, also C++; status, memory and threads as in nsa/nsa.h, but that every call here waits until it is done.
 *
 * X vocabulary, D hidden width, S tokens of a sequence, B sequences of a call. The network is Longspan's: embedding,
 * per layer attention (projections, RoPE, gates of the input) and SwiGLU, each behind an RMS norm, norm, head. */
#ifndef NSA_MODEL_H
#define NSA_MODEL_H

#include "nsa/nsa.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int32_t vocabulary;      /* X */
  int32_t layers;          /* 4 */
  int32_t hidden;          /* D */
  int32_t ffn;             /* F, width of the feed-forward; 8/3 D, rounded up to a multiple of 8 */
  int32_t sequence_length; /* S of every call: a multiple of block_stride, at least block_length; 1024 */
  int32_t tied_head;       /* 1 (the default): the head is the embedding; 0: it has weights of its own */
  /* Heads, widths, blocks, phi, shared_kv, dtype, device. rope_theta is that of queries and keys, above 0; 10000.
   * scaling_factor stays 1/sqrt(head_dim). max_length and max_batch are not read. */
  NSAConfig attention;
  uint64_t seed;      /* of the weights; 1 */
  float beta1, beta2; /* of AdamW; 0.9, 0.95 */
  float epsilon;      /* 1e-8 */
  float weight_decay; /* of matrices; 0.1 */
  float clip_norm;    /* of the gradient; 0: not clipped; 1 */
} NSAModelConfig;

typedef struct {
  void* impl; /* null: not initialised */
} NSAModel;

/* The defaults above; heads of hidden/heads channels, in one group. Checks nothing: nsa_model_init does. */
NSA_API NSAModelConfig nsa_model_default_config(int32_t vocabulary, int32_t layers, int32_t hidden, int32_t heads);

/* Makes *model a model with random weights, which nsa_model_free frees; when it fails, model->impl is null. */
NSA_API int nsa_model_init(NSAModel* model, const NSAModelConfig* config);
/* Makes *model the one of a folder in Hugging Face's layout: what `longspan export` makes of a run or checkpoint, and
 * dense models of Llama's, Mistral's and Qwen 3's form, as they are (not as NSA, which `longspan import` makes of
 * them). Of *config it reads sequence_length (0: as long as the model was trained on, but 4096 at most: the memory that
 * is taken is that of training at this length, on which a decoder's does not depend), dtype and device, and AdamW's
 * numbers; null: the defaults of these, and 0. Its forward is that of Longspan's training (on a CPU bit for bit), and
 * training goes on with it, from fresh moments.
 *
 * A checkpoint itself is not read: its configuration takes protobuf, which this library does without. */
NSA_API int nsa_model_open(NSAModel* model, const char* folder, const NSAModelConfig* config);
NSA_API int32_t nsa_model_vocabulary(const NSAModel* model);      /* X; 0 (and nsa_last_error) on wrong use */
NSA_API int32_t nsa_model_sequence_length(const NSAModel* model); /* S; likewise */
NSA_API void nsa_model_free(NSAModel* model);                     /* null or not initialised is fine */

/* Tokens [B,S] and targets [B,S] in HOST memory: a token from 0 to X - 1; a target likewise, or -1 for none. */

/* logits [B,S,X] float, HOST memory. */
NSA_API int nsa_model_logits(NSAModel* model, const int32_t* tokens, int32_t batch, float* logits);
/* *loss is the mean cross entropy of the targets that are not -1; 0 where all are. */
NSA_API int nsa_model_loss(NSAModel* model, const int32_t* tokens, const int32_t* targets, int32_t batch, double* loss);
/* The same, and ADDS the mean's gradients to the weights' gradients. */
NSA_API int nsa_model_backward(NSAModel* model, const int32_t* tokens, const int32_t* targets, int32_t batch,
                               double* loss);
/* One step of AdamW with the gradients since the last step, which then are zero. *norm (null: not wanted) is theirs
 * before clipping; when it is not finite, no weight has changed. */
NSA_API int nsa_model_step(NSAModel* model, double learning_rate, double* norm);

/* Weights by number, 0 to nsa_model_weight_count - 1, in a fixed order. */
typedef struct {
  const char* name; /* lives as long as the model */
  int32_t rank;
  int64_t shape[4];
} NSAWeight;
NSA_API int32_t nsa_model_weight_count(const NSAModel* model); /* 0 (and nsa_last_error) on wrong use */
NSA_API int nsa_model_weight(const NSAModel* model, int32_t number, NSAWeight* weight);
/* values [shape] float, HOST memory: the weight, or its gradient since the last step. */
NSA_API int nsa_model_get_weight(NSAModel* model, int32_t number, float* values);
NSA_API int nsa_model_get_gradient(NSAModel* model, int32_t number, float* values);
NSA_API int nsa_model_set_weight(NSAModel* model, int32_t number, const float* values);
/* All weights, float, to a safetensors file; and from one, which has every one of them in its shape, or nothing
 * changes. */
NSA_API int nsa_model_save(NSAModel* model, const char* path);
NSA_API int nsa_model_load(NSAModel* model, const char* path);

/* Decoding, token by token: what came before lies in caches, so that a token takes as long as its attention. */
typedef struct {
  void* impl; /* null: not initialised */
} NSADecoder;
enum { NSA_MAX_TAKEN_BACK = 256 }; /* tokens of a sequence, by nsa_decoder_truncate */

/* Makes *decoder one of `sequences` empty sequences of up to `length` tokens each, with a copy of the weights that the
 * model has now; nsa_decoder_free frees it, before the model goes. When it fails, decoder->impl is null. */
NSA_API int nsa_decoder_init(NSADecoder* decoder, NSAModel* model, int32_t sequences, int32_t length);
NSA_API void nsa_decoder_free(NSADecoder* decoder); /* null or not initialised is fine */
/* Appends tokens [count], HOST memory, from 0 to X - 1, to a sequence from 0 to sequences - 1. logits [X] float, HOST
 * memory (null: not wanted) are those after the last of them: what nsa_model_logits has at its place (on a CPU bit for
 * bit). */
NSA_API int nsa_decoder_append(NSADecoder* decoder, int32_t sequence, const int32_t* tokens, int32_t count,
                               float* logits);
/* One token [sequences] more of every sequence, together; logits [sequences,X]. */
NSA_API int nsa_decoder_step(NSADecoder* decoder, const int32_t* tokens, float* logits);
/* counts [num_sequences] tokens, each 1 or more, to sequences [num_sequences], each of them once (null: 0, 1, 2, ..),
 * together: tokens [T], those of sequences[i] after those of sequences[i-1]. logits [T,X] (null: not wanted) are those
 * after every token, so that a draft of several is checked in one call, and its end taken back. */
NSA_API int nsa_decoder_extend(NSADecoder* decoder, int32_t num_sequences, const int32_t* sequences,
                               const int32_t* counts, const int32_t* tokens, float* logits);
/* The first `length` tokens are the sequence's again, at most NSA_MAX_TAKEN_BACK fewer than it ever had since it was
 * empty. */
NSA_API int nsa_decoder_truncate(NSADecoder* decoder, int32_t sequence, int32_t length);
NSA_API int nsa_decoder_clear(NSADecoder* decoder, int32_t sequence);            /* makes it empty */
NSA_API int32_t nsa_decoder_length(const NSADecoder* decoder, int32_t sequence); /* its tokens; -1 on wrong use */

#ifdef __cplusplus
}
#endif

#endif
