#!/usr/bin/env python3
"""Decoding beside PyTorch's dense attention, in one run on one GPU.

  tests/bench/decode_bench.py LIBNSA [--lengths 8192,65536] [--shape 64,4,128] [--gib 4] [--kernels] [--skip-dense]
  tests/bench/decode_bench.py LIBNSA --model 65536 [--batch 1,16]

A step: one token more for each of so many sequences that their dense cache (keys and values of all of them, BF16) is
--gib. Ours is nsa_decode_device in a CUDA graph, launched again and again as the sequences grow: tokens appended, a
compressed token every d (phi: the MLP), three branches with keys and values of their own, gates. PyTorch's are the
backends of scaled_dot_product_attention and flex_attention, which splits the keys; they append nothing. Its fastest
counts. Before it is timed, a step's output is compared with that of nsa_forward at its position.

--model: a random model of 1.16B weights through nsa_model and nsa_decoder, host to host: prefill of one sequence to that
length, then tokens of a batch.
"""
import argparse
import ctypes as C
import os
import sys
import time
import warnings

import torch

PEAK = {"H100": 3352, "H200": 4800}  # GB/s of memory, by name


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("libnsa")
    parser.add_argument("--lengths", default="8192,32768,65536,131072")
    parser.add_argument("--shape", default="64,4,128")
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--skip-dense", action="store_true")
    parser.add_argument("--model", type=int)
    parser.add_argument("--batch", default="1,16")
    return parser.parse_args()


def milliseconds(run, count):
    run()
    best = float("inf")
    for _ in range(3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            run()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / count)
    return best


class DeviceStep(C.Structure):
    _fields_ = ([("num_sequences", C.c_int32), ("new_tokens", C.c_int32), ("sequences", C.c_void_p),
                 ("lengths", C.c_void_p), ("page_table", C.c_void_p), ("page_table_width", C.c_int32),
                 ("q", C.c_void_p), ("k", C.c_void_p * 3), ("v", C.c_void_p * 3), ("gates", C.c_void_p),
                 ("out", C.c_void_p), ("selected", C.c_void_p)])


class Ours:
    """Sequences of `length` tokens less those that the timing adds, in a cache."""
    BLOCK, STRIDE, PAGE, SELECT, WINDOW = 32, 16, 64, 16, 512

    def __init__(self, nsa, shape, length, batch):
        self.nsa, self.length, self.batch = nsa, length, batch
        heads, groups, width = self.shape = shape
        config = nsa.lib.nsa_create_default_config(width, heads)
        config.num_groups, config.dtype, config.device, config.max_length, config.max_batch = groups, 1, 0, length, batch
        self.context, self.cache = C.c_void_p(), C.c_void_p()
        nsa.check(nsa.lib.nsa_init(C.byref(self.context), C.byref(config)))
        hidden = 2 * width
        self.weights = {}
        for side in ("phi_k", "phi_v"):
            for name, sizes in (("position", (self.BLOCK, width)), ("weight1", (self.BLOCK * width, hidden)),
                                ("bias1", (hidden,)), ("weight2", (hidden, width)), ("bias2", (width,))):
                value = self.normal(*sizes) * sizes[0] ** -0.5
                self.weights[f"{side}.{name}"] = value
                nsa.check(nsa.lib.nsa_bind_weight(C.byref(self.context), f"{side}.{name}".encode(), value.data_ptr()))
        pages = length // self.PAGE
        nsa.check(nsa.lib.nsa_cache_init(C.byref(self.context), C.byref(self.cache), pages * batch))
        self.table = torch.randperm(pages * batch, device="cuda", dtype=torch.int32).view(batch, pages).contiguous()
        self.held = length - 256
        self.prefill()

    @staticmethod
    def normal(*sizes):
        return torch.randn(*sizes, device="cuda", dtype=torch.bfloat16)

    def prefill(self):
        nsa, (heads, groups, width), tokens = self.nsa, self.shape, self.held
        q, k, v = self.normal(tokens, heads, width), self.normal(tokens, groups, width), self.normal(tokens, groups, width)
        gates, out = torch.rand(tokens, heads, 3, device="cuda").bfloat16(), torch.empty_like(q)
        saved = torch.empty(nsa.lib.nsa_saved_size(C.byref(self.context), tokens), dtype=torch.uint8, device="cuda")
        same = lambda x: nsa.P3(*[x.data_ptr()] * 3)
        for sequence in range(self.batch):
            inputs = nsa.Inputs(tokens, None, q.data_ptr(), same(k), same(v), gates.data_ptr())
            outputs = nsa.Outputs(out.data_ptr(), saved.data_ptr(), None)
            nsa.check(nsa.lib.nsa_prefill(C.byref(self.context), C.byref(self.cache), sequence, C.byref(inputs),
                                          C.c_void_p(self.table[sequence].data_ptr()), C.byref(outputs), self.stream()))
        # The first step is of the last token once more.
        rows = lambda x: x[-1:].expand(self.batch, *x.shape[1:]).contiguous()
        self.q, self.k, self.v, self.gates = rows(q), rows(k), rows(v), rows(gates)
        self.expected, self.out = rows(out), torch.empty_like(self.q)
        self.lengths = torch.full((self.batch,), tokens - 1, device="cuda", dtype=torch.int32)
        self.step = DeviceStep(self.batch, 1, None, self.lengths.data_ptr(), self.table.data_ptr(), self.table.shape[1],
                               self.q.data_ptr(), same(self.k), same(self.v), self.gates.data_ptr(),
                               self.out.data_ptr(), None)
        torch.cuda.synchronize()

    @staticmethod
    def stream():
        return C.c_void_p(torch.cuda.current_stream().cuda_stream)

    def decode(self):
        self.nsa.check(self.nsa.lib.nsa_decode_device(C.byref(self.context), C.byref(self.cache), C.byref(self.step),
                                                      self.stream()))

    def error(self):
        self.decode()
        torch.cuda.synchronize()
        difference = (self.out.float() - self.expected.float()).square().mean()
        return (difference / self.expected.float().square().mean()).sqrt().item()

    def captured(self):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.decode()
        return graph.replay

    def bytes(self):
        """Keys and values that a step reads."""
        _, groups, width = self.shape
        rows = self.held // self.STRIDE + self.SELECT * self.PAGE + self.WINDOW
        return self.batch * groups * rows * 2 * width * 2

    def free(self):
        self.nsa.lib.nsa_cache_free(C.byref(self.cache))
        self.nsa.lib.nsa_free(C.byref(self.context))


def dense(shape, length, batch):
    """PyTorch's, by name: ms."""
    heads, groups, width = shape
    k, v = (torch.randn(batch, groups, length, width, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    q = torch.randn(batch, heads, 1, width, device="cuda", dtype=torch.bfloat16)
    rows = q.view(batch, groups, heads // groups, width)  # a group's heads as queries: all of them see all keys
    from torch.nn.attention import SDPBackend, sdpa_kernel
    warnings.filterwarnings("ignore")  # each backend says why it does not serve
    sdpa = torch.nn.functional.scaled_dot_product_attention
    found = {}

    def time_of(name, run):
        try:
            found[name] = milliseconds(run, 10)
        except Exception as error:  # a backend without such a call
            found.setdefault("without", []).append(f"{name} ({type(error).__name__})")

    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION),
                          ("efficient", SDPBackend.EFFICIENT_ATTENTION)):
        with sdpa_kernel([backend]):
            time_of(f"{name} gqa", lambda: sdpa(q, k, v, enable_gqa=True))
            time_of(f"{name} rows", lambda: sdpa(rows, k, v))
    from torch.nn.attention.flex_attention import flex_attention
    flex = torch.compile(flex_attention, dynamic=False)
    time_of("flex gqa", lambda: flex(q, k, v, enable_gqa=True))
    return found


def operator(args, nsa):
    shape = [int(x) for x in args.shape.split(",")]
    heads, groups, width = shape
    device = torch.cuda.get_device_name()
    peak = next((rate for name, rate in PEAK.items() if name in device), None)
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    copy = torch.empty_like(source)
    copied = 2 * source.numel() / milliseconds(lambda: copy.copy_(source), 10) * 1e-6
    del source, copy
    print(f"{device}, PyTorch {torch.__version__}, H={heads} G={groups} K=V={width}, dense cache {args.gib:g} GiB, "
          f"copies {copied:.0f} GB/s, peak {peak} GB/s")
    print(f"{'length':>8}{'batch':>6}{'ours ms':>9}{'GB/s':>7}{'of peak':>8}{'error':>9}{'PyTorch ms':>12}{'ratio':>7}"
          f"{'bytes':>7}  fastest, others")
    for length in [int(x) for x in args.lengths.split(",")]:
        batch = max(1, int(args.gib * 2**30 / (groups * 2 * width * 2 * length)))
        ours = Ours(nsa, shape, length, batch)
        error = ours.error()
        ms = milliseconds(ours.captured(), 20)
        rate, ratio = ours.bytes() / ms * 1e-6, batch * groups * length * 4 * width / ours.bytes()
        row = f"{length:>8}{batch:>6}{ms:>9.4f}{rate:>7.0f}{rate / (peak or copied):>8.0%}{error:>9.1e}"
        if args.kernels:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                for _ in range(20):
                    ours.decode()
                torch.cuda.synchronize()
            for event in sorted(profile.key_averages(), key=lambda x: -x.self_device_time_total)[:9]:
                print(f"    {event.self_device_time_total / 20:>8.1f} us  {event.key[:90]}")
        ours.free()
        del ours
        torch.cuda.empty_cache()
        if not args.skip_dense:
            found = dense(shape, length, batch)
            without = found.pop("without", [])
            order = sorted(found, key=found.get)
            row += f"{found[order[0]]:>12.3f}{found[order[0]] / ms:>7.2f}{ratio:>7.2f}  "
            row += ", ".join(f"{name} {found[name]:.2f}" for name in order) + (f"; no {', '.join(without)}" if without else "")
        print(row, flush=True)
        torch.cuda.empty_cache()


def model(args, nsa):
    sys.argv = [sys.argv[0]]

    class ModelConfig(C.Structure):
        _fields_ = ([(name, C.c_int32) for name in "vocabulary layers hidden ffn sequence_length tied_head".split()] +
                    [("attention", nsa.Config), ("seed", C.c_uint64)] +
                    [(name, C.c_float) for name in "beta1 beta2 epsilon weight_decay clip_norm".split()])

    lib, check = nsa.lib, nsa.check
    lib.nsa_model_default_config.restype = ModelConfig
    config = lib.nsa_model_default_config(50304, 20, 2048, 32)
    config.ffn, config.sequence_length = 5632, 1024
    attention = config.attention
    attention.head_dim, attention.num_groups, attention.dtype, attention.device = 128, 2, 1, 0
    attention.scaling_factor = lib.nsa_create_default_config(128, 32).scaling_factor
    made = C.c_void_p()
    check(lib.nsa_model_init(C.byref(made), C.byref(config)))
    print(f"{torch.cuda.get_device_name()}: 20 layers, D=2048, H=32 G=2 K=V=128, F=5632, X=50304, context {args.model}")
    for batch in [int(x) for x in args.batch.split(",")]:
        decoder = C.c_void_p()
        check(lib.nsa_decoder_init(C.byref(decoder), C.byref(made), batch, args.model))
        prompt = (C.c_int32 * (args.model - 128))(*[(i * i + 7 * i) % 50304 for i in range(args.model - 128)])
        begin = time.time()
        for sequence in range(batch):
            check(lib.nsa_decoder_append(C.byref(decoder), sequence, prompt, len(prompt), None))
            if sequence == 0:
                # The others' rates are alike.
                check(lib.nsa_decoder_append(C.byref(decoder), 0, prompt, 1, (C.c_float * 50304)()))
                seconds = time.time() - begin
                print(f"prefill: {len(prompt) / seconds:.0f} tokens/s ({seconds:.1f} s)", flush=True)
        tokens, logits = (C.c_int32 * batch)(*range(batch)), (C.c_float * (batch * 50304))()
        for _ in range(3):
            check(lib.nsa_decoder_step(C.byref(decoder), tokens, logits))
        begin, steps = time.time(), 40
        for _ in range(steps):
            check(lib.nsa_decoder_step(C.byref(decoder), tokens, logits))
        seconds = (time.time() - begin) / steps
        print(f"batch {batch}: {batch / seconds:.0f} tokens/s, {seconds * 1e3:.2f} ms a step", flush=True)
        lib.nsa_decoder_free(C.byref(decoder))
    lib.nsa_model_free(C.byref(made))


def main():
    args = parse()
    os.environ["NSA_LIBRARY"] = os.path.abspath(args.libnsa)
    sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../nsa/examples"))
    import nsa
    for name in ("nsa_prefill", "nsa_decode_device"):
        getattr(nsa.lib, name).argtypes = None
    torch.manual_seed(1)
    model(args, nsa) if args.model else operator(args, nsa)


if __name__ == "__main__":
    main()
