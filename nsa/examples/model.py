"""A whole model from Python by ctypes alone: logits of a batch [32,128], and training on the Fibonacci task (each digit is the
sum of the two before it, modulo ten). NSA_LIBRARY names the library where the loader does not find libnsa.so.0."""
import ctypes as C, random
from nsa import Config, check, lib

class ModelConfig(C.Structure):
    _fields_ = ([(name, C.c_int32) for name in "vocabulary layers hidden ffn sequence_length tied_head".split()] +
                [("attention", Config), ("seed", C.c_uint64)] +
                [(name, C.c_float) for name in "beta1 beta2 epsilon weight_decay clip_norm".split()])
lib.nsa_model_default_config.restype = ModelConfig

def draw(batch, length):
    tokens, targets = [], []
    for _ in range(batch):
        digits = [random.randrange(10), random.randrange(10)]
        while len(digits) <= length: digits.append((digits[-1] + digits[-2]) % 10)
        tokens += digits[:-1]
        targets += [-1] + digits[2:]  # the second digit is anyone's guess
    return (C.c_int32 * len(tokens))(*tokens), (C.c_int32 * len(targets))(*targets)

random.seed(1)
config = lib.nsa_model_default_config(10, 2, 64, 4)  # vocabulary, layers, hidden width, heads
config.sequence_length, config.attention.device = 128, -1  # the CPU
model, loss = C.c_void_p(), C.c_double()  # NSAModel holds one pointer
check(lib.nsa_model_init(C.byref(model), C.byref(config)))
tokens, targets = draw(32, 128)
logits = (C.c_float * (32 * 128 * 10))()
check(lib.nsa_model_logits(C.byref(model), tokens, 32, logits))
print("logits of the last token:", " ".join(f"{x:.3f}" for x in logits[-10:]))
for step in range(1, 61):
    tokens, targets = draw(8, 128)
    check(lib.nsa_model_backward(C.byref(model), tokens, targets, 8, C.byref(loss)))
    check(lib.nsa_model_step(C.byref(model), C.c_double(3e-3), None))
    if step % 20 == 0: print(f"step {step}: loss {loss.value:.4f}")
assert loss.value < 0.5
lib.nsa_model_free(C.byref(model))
