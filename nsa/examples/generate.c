/* Writes on from token ids with a model that `longspan export` made a folder of, taking the likeliest token each time.
 * generate FOLDER TOKENS ID.. ; cc generate.c $(pkg-config --cflags --libs nsa) */
#include <nsa/model.h>
#include <stdio.h>
#include <stdlib.h>

static void Check(int status) {
  if (status == NSA_SUCCESS) return;
  fprintf(stderr, "%s: %s\n", nsa_status_string(status), nsa_last_error());
  exit(1);
}

int main(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: generate FOLDER TOKENS ID..\n");
    return 64;
  }
  const int32_t tokens = atoi(argv[2]), prompt = argc - 3;
  NSAModel model;
  Check(nsa_model_open(&model, argv[1], NULL));
  NSADecoder decoder;
  Check(nsa_decoder_init(&decoder, &model, 1, prompt + tokens));
  const int32_t vocabulary = nsa_model_vocabulary(&model);
  float* logits = malloc((size_t)vocabulary * sizeof *logits);
  for (int32_t i = 0; i < prompt + tokens; ++i) {
    int32_t id = 0;
    if (i < prompt) {
      id = atoi(argv[3 + i]);
    } else {
      for (int32_t x = 1; x < vocabulary; ++x) id = logits[x] > logits[id] ? x : id;
    }
    printf(i == 0 ? "%d" : " %d", (int)id);
    if (i + 1 < prompt + tokens) Check(nsa_decoder_append(&decoder, 0, &id, 1, logits));
  }
  printf("\n");
  free(logits);
  nsa_decoder_free(&decoder);
  nsa_model_free(&model);
  return 0;
}
