"""Native Sparse Attention from Python by ctypes alone: forward and backward of a sequence, and a derivative to compare.

NSA_LIBRARY names the library where the loader does not find libnsa.so.0. Importing this gives `lib`, the structures and
`check` (torch_nsa.py trains with them)."""
import ctypes as C, os, random
lib = C.CDLL(os.environ.get("NSA_LIBRARY", "libnsa.so.0"))

class Config(C.Structure):
    _fields_ = ([(name, C.c_int32) for name in "block_length block_stride selection_block_size num_selected_blocks window_size "
                 "head_dim num_heads".split()] + [("scaling_factor", C.c_float)] +
                [(name, C.c_int32) for name in "value_dim num_groups num_initial_blocks num_local_blocks phi phi_hidden "
                 "shared_kv".split()] + [("rope_theta", C.c_float), ("dtype", C.c_int32), ("device", C.c_int32),
                                         ("max_length", C.c_int64), ("max_batch", C.c_int32)])
P, P3 = C.c_void_p, C.c_void_p * 3
class Inputs(C.Structure): _fields_ = [("tokens", C.c_int64), ("doc_start", P), ("q", P), ("k", P3), ("v", P3), ("gates", P)]
class Outputs(C.Structure): _fields_ = [("out", P), ("saved", P), ("selected", P)]
class Gradients(C.Structure): _fields_ = [("d_q", P), ("d_k", P3), ("d_v", P3), ("d_gates", P)]

lib.nsa_create_default_config.restype, lib.nsa_last_error.restype = Config, C.c_char_p
lib.nsa_saved_size.argtypes = lib.nsa_backward_workspace_size.argtypes = [P, C.c_int64]
lib.nsa_saved_size.restype = lib.nsa_backward_workspace_size.restype = C.c_size_t
lib.nsa_forward.argtypes, lib.nsa_backward.argtypes = [P] * 4, [P] * 7
lib.nsa_bind_weight.argtypes = lib.nsa_bind_gradient.argtypes = [P, C.c_char_p, P]
def check(status):
    if status: raise RuntimeError(lib.nsa_last_error().decode())

if __name__ == "__main__":
    S, H, G, K = 300, 4, 2, 16
    config = lib.nsa_create_default_config(K, H)
    config.num_groups, config.phi, config.dtype, config.device = G, 2, 2, -1  # the mean; doubles; the CPU
    context = C.c_void_p()  # NSAContext holds one pointer
    check(lib.nsa_init(C.byref(context), C.byref(config)))
    numbers = lambda n: (C.c_double * n)(*(random.gauss(0, 1) for _ in range(n)))
    at = lambda x: C.cast(x, P).value
    q, k, v = numbers(S * H * K), [numbers(S * G * K) for _ in range(3)], [numbers(S * G * K) for _ in range(3)]
    out, d_out, d_q = numbers(S * H * K), numbers(S * H * K), numbers(S * H * K)
    saved = C.create_string_buffer(lib.nsa_saved_size(C.byref(context), S))
    work = C.create_string_buffer(lib.nsa_backward_workspace_size(C.byref(context), S))
    inputs = Inputs(S, None, at(q), P3(*map(at, k)), P3(*map(at, v)), None)
    def loss():
        check(lib.nsa_forward(C.byref(context), C.byref(inputs), C.byref(Outputs(at(out), at(saved), None)), None))
        return sum(x * y for x, y in zip(out, d_out))
    print(f"loss {loss():.6f}")
    check(lib.nsa_backward(C.byref(context), C.byref(inputs), saved, d_out, C.byref(Gradients(d_q=at(d_q))), work, None))
    place, step = 250 * H * K + 3, 1e-5
    q[place] += step; above = loss()
    q[place] -= 2 * step; difference = (above - loss()) / (2 * step)
    print(f"d loss / d q[{place}]: {d_q[place]:.8f} by nsa_backward, {difference:.8f} by differences")
    assert abs(d_q[place] - difference) < 1e-6
    lib.nsa_free(C.byref(context))
