"""What compare_torch.py sets beside Longspan: PyTorch's dense attention, Longspan's C library on PyTorch's memory, and
public NSA kernels where they can be imported. Each entrant computes one stage of the operator, for the same tensors as
Longspan's:

  full        dense causal attention                       window      the window branch
  compressed  the compressed branch, its keys mean-pooled  selected    the selected branch, on given blocks
  whole       q, k, v and gates to the output, with the entrant's own choice of blocks

The paper's block sizes, keys and values shared by the branches, mean-pooled compression: what the public kernels have.
"""
import ctypes
import importlib
import os
import sys
from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BLOCK, STRIDE, SELECT_BLOCK, SELECT, INIT, LOCAL, WINDOW = 32, 16, 64, 16, 1, 2, 512


@dataclass
class Inputs:
    q: torch.Tensor  # [S,H,K] bf16, as all but `selected`
    k: torch.Tensor  # [S,G,K]
    v: torch.Tensor  # [S,G,V]
    logits: torch.Tensor  # [S,H,3], of the gates
    d_out: torch.Tensor  # [S,H,V]
    selected: torch.Tensor  # [S,G,N] int32, ascending, padded with -1

    @property
    def tokens(self):
        return self.q.shape[0]

    @property
    def scale(self):
        return self.q.shape[2] ** -0.5

    @property
    def ends(self):  # of the only document
        return torch.tensor([0, self.tokens], dtype=torch.int32, device=self.q.device)


@dataclass
class Entrant:
    name: str
    stage: str
    # start(inputs) -> (forward, backward): forward() gives [S,H,V]; backward() (d_q, d_k, d_v) for inputs.d_out, of the
    # last forward.
    start: Callable
    note: str = ""


def differentiated(function, inputs, layout=lambda x: x, back=lambda x: x):
    """A function of q, k and v that PyTorch differentiates; `layout` makes its inputs, `back` undoes it."""
    leaves = [layout(x.detach()).contiguous().requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    d_out = layout(inputs.d_out).contiguous()
    last = []

    def forward():
        last[:] = [function(*leaves)]
        return back(last[0].detach())

    def backward():
        return [back(x) for x in torch.autograd.grad(last[0], leaves, d_out, retain_graph=True)]

    return forward, backward


def dense(backend):
    def start(inputs):
        def function(q, k, v):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        return differentiated(function, inputs, lambda x: x.transpose(0, 1)[None], lambda x: x[0].transpose(0, 1))

    return start


def flash2(q, k, v, ends, scale, window):
    n = q.shape[0]
    return torch.ops.aten._flash_attention_forward(q, k, v, ends, ends, n, n, 0.0, True, False, scale=scale,
                                                   window_size_left=window - 1, window_size_right=0)


def flash2_window(inputs):
    ends = inputs.ends
    return differentiated(lambda q, k, v: flash2(q, k, v, ends, inputs.scale, WINDOW)[0], inputs)


def torch_entrants():
    return [
        Entrant("FlashAttention-2", "full", dense(SDPBackend.FLASH_ATTENTION)),
        Entrant("cuDNN", "full", dense(SDPBackend.CUDNN_ATTENTION)),
        Entrant("FlashAttention-2", "window", flash2_window),
    ]


def nsa_entrant(path):
    """The library that the path names: nsa_forward and nsa_backward on PyTorch's pointers and stream."""
    os.environ["NSA_LIBRARY"] = path
    sys.path.append(os.path.join(os.path.dirname(__file__), "../../nsa/examples"))
    nsa, torch_nsa = importlib.import_module("nsa"), importlib.import_module("torch_nsa")

    def start(inputs):
        q, k, v, d_out = inputs.q, inputs.k, inputs.v, inputs.d_out
        tokens, heads, key_width = q.shape
        made = torch_nsa.Context(key_width, heads, q.dtype, q.device, num_groups=k.shape[1], value_dim=v.shape[2],
                                 phi=2, shared_kv=1, max_length=tokens)  # the mean
        context, stream = ctypes.byref(made.handle), torch_nsa.stream(q)

        def scratch(size):
            return torch.empty(size(context, tokens), dtype=torch.uint8, device=q.device)

        gates, out = torch.sigmoid(inputs.logits.float()).to(q.dtype), torch.empty_like(d_out)
        saved, work = scratch(nsa.lib.nsa_saved_size), scratch(nsa.lib.nsa_backward_workspace_size)
        d = [torch.empty(x.shape, dtype=made.sums, device=x.device) for x in (q, k, v)]

        def of_all(x):  # branches share the first's
            return nsa.P3(x.data_ptr(), None, None)

        given = nsa.Inputs(tokens, None, q.data_ptr(), of_all(k), of_all(v), gates.data_ptr())
        outputs = nsa.Outputs(out.data_ptr(), saved.data_ptr(), None)
        gradients = nsa.Gradients(d[0].data_ptr(), of_all(d[1]), of_all(d[2]), None)

        def forward():
            nsa.check(nsa.lib.nsa_forward(context, ctypes.byref(given), ctypes.byref(outputs), stream))
            return out

        def backward():
            nsa.check(nsa.lib.nsa_backward(context, ctypes.byref(given), saved.data_ptr(), d_out.data_ptr(),
                                           ctypes.byref(gradients), work.data_ptr(), stream))
            return d

        # What the library reads and writes lives as long as the calls.
        forward.holds = backward.holds = (made, gates)
        return forward, backward

    return Entrant("libnsa", "whole", start)


def by_group(inputs, padding=-1):
    """The given blocks as [G,S,N]."""
    blocks = inputs.selected.permute(1, 0, 2).contiguous()
    return blocks if padding == -1 else torch.where(blocks < 0, padding, blocks)


def triton_entrants():
    """XunhaoLai/native-sparse-attention-triton"""
    ops = importlib.import_module("native_sparse_attention.ops")

    def compressed_branch(q, k, v, inputs, ends, topk):
        k_cmp, cmp_ends = ops.avgpool_compress(k, None, ends, BLOCK, STRIDE, None)
        v_cmp, _ = ops.avgpool_compress(v, None, ends, BLOCK, STRIDE, None)
        return ops.compressed_attention(q, k_cmp, v_cmp, BLOCK, STRIDE, SELECT_BLOCK, topk, ends, cmp_ends, q.shape[0],
                                        k_cmp.shape[0], inputs.scale, INIT, LOCAL)

    def compressed(inputs):
        ends = inputs.ends
        return differentiated(lambda q, k, v: compressed_branch(q, k, v, inputs, ends, -1)[0], inputs)

    def selected(inputs):
        blocks, ends = by_group(inputs), inputs.ends
        return differentiated(
            lambda q, k, v: ops.topk_sparse_attention(q, k, v, blocks, SELECT_BLOCK, ends, inputs.scale), inputs)

    def whole(inputs):
        ends, gates = inputs.ends, torch.sigmoid(inputs.logits.float()).to(inputs.q.dtype)

        def function(q, k, v):
            o_cmp, blocks = compressed_branch(q, k, v, inputs, ends, SELECT)
            o_slc = ops.topk_sparse_attention(q, k, v, blocks, SELECT_BLOCK, ends, inputs.scale)
            o_win = flash2(q, k, v, ends, inputs.scale, WINDOW)[0]
            return gates[:, :, 0:1] * o_cmp + gates[:, :, 1:2] * o_slc + gates[:, :, 2:3] * o_win

        return differentiated(function, inputs)

    name = "native_sparse_attention"
    return [Entrant(name, "compressed", compressed, "pools its keys in the same call"),
            Entrant(name, "selected", selected), Entrant(name, "whole", whole)]


def fsa_entrants():
    """Relaxed-System-Lab/Flash-Sparse-Attention"""
    attention = importlib.import_module("fsa.ops").FSA_topk_sparse_attention

    def selected(inputs):
        blocks, ends = by_group(inputs), inputs.ends
        return differentiated(lambda q, k, v: attention(q, k, v, blocks, SELECT_BLOCK, ends, inputs.scale), inputs)

    return [Entrant("fsa", "selected", selected, "made for 8 heads a group or fewer")]


def fla_entrants():
    """fla-org/flash-linear-attention; its compressed branch has other blocks (64, 64): not compared."""
    nsa = importlib.import_module("fla.ops.nsa.parallel")

    def selected(inputs):
        q, k, v, d_out = (x[None] for x in (inputs.q, inputs.k, inputs.v, inputs.d_out))
        blocks, last = inputs.selected[None].contiguous(), []

        def forward():
            last[:] = nsa.parallel_nsa_fwd(q, k, v, blocks, SELECT, SELECT_BLOCK, inputs.scale)
            return last[0][0]

        def backward():
            return [x[0] for x in nsa.parallel_nsa_bwd(q, k, v, last[0], last[1], d_out, blocks, SELECT, SELECT_BLOCK,
                                                       inputs.scale)]

        return forward, backward

    return [Entrant("fla", "selected", selected)]


def flash_nsa_entrants():
    """mdy666/Scalable-Flash-Native-Sparse-Attention; its window branch is given PyTorch's FlashAttention-2."""
    package = importlib.import_module("flash_nsa")
    modules = importlib.import_module("flash_nsa.modules.megatron_level_nsa")
    package.NSAConfig.sequence_parallel = False  # its module asks for it

    def core(inputs):
        ends, n = inputs.ends, inputs.tokens

        def swa_fwd(q, k, v, sm_scale=None, out=None, helper=None):
            o, lse, modules.seed, modules.offset, _ = flash2(q, k, v, ends, inputs.scale, WINDOW)
            return o, lse

        def swa_bwd(q, k, v, out, lse, dout, sm_scale=None, helper=None):
            return torch.ops.aten._flash_attention_backward(
                dout.contiguous(), q, k, v, out, lse, ends, ends, n, n, 0.0, True, modules.seed, modules.offset,
                scale=inputs.scale, window_size_left=WINDOW - 1, window_size_right=0)

        modules.swa_fwd, modules.swa_bwd = swa_fwd, swa_bwd
        config = package.NSAConfig(num_heads=inputs.q.shape[1], num_kv_heads=inputs.k.shape[1],
                                   head_dim=inputs.q.shape[2], qk_head_dim=inputs.q.shape[2],
                                   v_head_dim=inputs.v.shape[2])
        made = package.NSACore(config, process_group=None, pp_size=1).to(inputs.q)
        package.NSAHelper.init_cu_seqlens(ends)
        return made, ends

    def compressed(inputs):
        core(inputs)
        return differentiated(
            lambda q, k, v: package.compress_attn(q, package.mean_pooling(k), package.mean_pooling(v), inputs.scale)[0],
            inputs)

    def selected(inputs):
        core(inputs)
        blocks = by_group(inputs, padding=-(-inputs.tokens // SELECT_BLOCK))
        return differentiated(lambda q, k, v: package.select_attn(q, k, v, blocks, inputs.scale), inputs)

    def whole(inputs):
        made, ends = core(inputs)
        return differentiated(lambda q, k, v: made(q, k, v, inputs.logits, ends), inputs)

    return [Entrant("flash_nsa", "compressed", compressed, "pools its keys in the same call"),
            Entrant("flash_nsa", "selected", selected),
            Entrant("flash_nsa", "whole", whole, "scores in fp16: other blocks at near ties")]


PUBLIC = {"flash_nsa": flash_nsa_entrants, "native_sparse_attention": triton_entrants, "fla": fla_entrants,
          "fsa": fsa_entrants}


def public_entrants(without):
    """(entrants, {name: why it is not among them})"""
    entrants, absent = [], {}
    for name, make in PUBLIC.items():
        if name in without:
            absent[name] = "as asked"
            continue
        try:
            entrants += make()
        except Exception as error:  # whatever an import of other people's code throws
            absent[name] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return entrants, absent
