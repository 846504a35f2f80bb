"""Longspan's models in plain PyTorch, for transformers with trust_remote_code=True.

What the tensors mean, to read and to check against: every mask is a dense [S,S] one, there is no cache, and each row of
input_ids is one document. Train and generate with Longspan itself.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

try:
    from transformers.generation import GenerationMixin
except ImportError:  # older versions have it in PreTrainedModel
    class GenerationMixin:
        pass


class LongspanConfig(PretrainedConfig):
    model_type = "longspan"

    def __init__(self, vocab_size=256, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=8,
                 num_key_value_heads=2, head_dim=16, value_head_dim=None, rms_norm_eps=1e-5, rope_theta=10000.0,
                 rope_scaling=None, rope_parameters=None, max_position_embeddings=2048, tie_word_embeddings=True, qk_norm=False,
                 attention_kinds=("NSA",), nsa=None, **kwargs):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.value_head_dim = value_head_dim or head_dim
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = rope_theta
        self.rope_scaling = dict(rope_parameters or rope_scaling or {}) or None  # as transformers 5 and 4 name it
        self.max_position_embeddings = max_position_embeddings
        self.qk_norm = qk_norm
        self.attention_kinds = list(attention_kinds)
        self.nsa = dict(block=32, stride=16, select_block=64, select=16, init=1, local=2, window=512, phi="MLP",
                        phi_hidden=0, compress_rope="AFTER", kv_branches="SEPARATE")
        self.nsa.update(nsa or {})
        self.use_cache = False
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


def rope_table(config):
    """Frequencies [K/2] in float64, and the factor of rotated queries and keys (YaRN, arXiv 2309.00071)."""
    width = config.head_dim
    scaling = config.rope_scaling or {}
    theta = config.rope_theta
    frequency = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    if scaling.get("rope_type", scaling.get("type", "default")) != "yarn":
        return frequency, 1.0
    factor, original = scaling["factor"], scaling["original_max_position_embeddings"]

    def pair(rotations):
        return width * math.log(original / rotations / (2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair(scaling.get("beta_fast", 32))), 0)
    high = min(math.ceil(pair(scaling.get("beta_slow", 1))), width - 1)
    span = 0.001 if high == low else high - low
    interpolated = ((torch.arange(width // 2, dtype=torch.float64) - low) / span).clamp(0, 1)
    frequency = frequency * (1 - interpolated + interpolated / factor)
    return frequency, scaling.get("attention_factor") or (0.1 * math.log(factor) + 1 if factor > 1 else 1.0)


def rotate(x, positions, config):
    """x [B,S,heads,K]: channel c pairs with c+K/2."""
    frequency, factor = rope_table(config)
    angles = positions.to("cpu", torch.float64)[:, None] * frequency
    cos = (angles.cos() * factor).to(x.device, torch.float32)[:, None]
    sin = (angles.sin() * factor).to(x.device, torch.float32)[:, None]
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def probabilities(q, k, mask, scale):
    """Softmax over visible keys, [B,H,S,U]; a query that sees none has zeros. q [B,S,H,K], k [B,U,G,K]."""
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    scores = torch.einsum("bshk,buhk->bhsu", q.float(), k.float()) * scale
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).nan_to_num(0.0)


def weighted(p, v):
    """[B,S,H,V] of p [B,H,S,U] and v [B,U,G,V]."""
    v = v.repeat_interleave(p.shape[1] // v.shape[2], dim=2)
    return torch.einsum("bhsu,buhv->bshv", p, v.float()).to(v.dtype)


class RmsNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight.float()).to(x.dtype)


class Phi(nn.Module):
    """One compressed row of l rows, every d rows."""

    def __init__(self, config, width):
        super().__init__()
        nsa, groups = config.nsa, config.num_key_value_heads
        self.nsa = nsa
        inputs, hidden = nsa["block"] * width, nsa["phi_hidden"] or 2 * width
        if nsa["phi"] == "MLP":
            self.position = nn.Parameter(torch.zeros(nsa["block"], width))
            self.weight1 = nn.Parameter(torch.zeros(inputs, hidden))
            self.bias1 = nn.Parameter(torch.zeros(hidden))
            self.weight2 = nn.Parameter(torch.zeros(hidden, width))
            self.bias2 = nn.Parameter(torch.zeros(width))
        elif nsa["phi"] == "LINEAR":
            self.position = nn.Parameter(torch.zeros(groups, nsa["block"], width))
            self.weight = nn.Parameter(torch.zeros(groups, inputs, width))

    def forward(self, x):
        """[B,C,G,W] of x [B,S,G,W], S >= l."""
        blocks = x.unfold(1, self.nsa["block"], self.nsa["stride"]).transpose(-1, -2)  # [B,C,G,l,W]
        if self.nsa["phi"] == "MEAN":
            return blocks.mean(dim=-2)
        rows = (blocks + self.position).flatten(-2)
        if self.nsa["phi"] == "LINEAR":
            return torch.einsum("bcgi,giw->bcgw", rows, self.weight)
        return F.gelu(rows @ self.weight1 + self.bias1) @ self.weight2 + self.bias2


class LongspanAttention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.config = config
        self.kind = config.attention_kinds[layer % len(config.attention_kinds)]
        hidden, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        keys, values = config.head_dim, config.value_head_dim
        self.q_proj = nn.Linear(hidden, heads * keys, bias=False)
        if config.qk_norm:
            self.q_norm = RmsNorm(keys, config.rms_norm_eps)
        separate = self.kind == "NSA" and config.nsa["kv_branches"] == "SEPARATE"
        self.branches = ["_cmp", "_slc", "_win"] if separate else [""]
        for branch in self.branches:
            self.add_module(f"k{branch}_proj", nn.Linear(hidden, groups * keys, bias=False))
            self.add_module(f"v{branch}_proj", nn.Linear(hidden, groups * values, bias=False))
            if config.qk_norm:
                self.add_module(f"k{branch}_norm", RmsNorm(keys, config.rms_norm_eps))
        if self.kind == "NSA":
            self.gate_proj = nn.Linear(hidden, 3 * heads)
            self.phi_k = Phi(config, keys)
            self.phi_v = Phi(config, values)
        self.o_proj = nn.Linear(heads * values, hidden, bias=False)

    def keys_values(self, x, branch):
        """k before its rotation [B,S,G,K], v [B,S,G,V]."""
        shape = (*x.shape[:2], self.config.num_key_value_heads, -1)
        k = getattr(self, f"k{branch}_proj")(x).view(shape)
        if self.config.qk_norm:
            k = getattr(self, f"k{branch}_norm")(k)
        return k, getattr(self, f"v{branch}_proj")(x).view(shape)

    def select(self, p_cmp, length):
        """Whether a query takes a block, [B,G,S,blocks], by p_cmp [B,H,S,C]; highest scores, ties to the lower index."""
        nsa, groups = self.config.nsa, self.config.num_key_value_heads
        device = p_cmp.device
        blocks = -(-length // nsa["select_block"])
        block = torch.arange(blocks, device=device)
        own = torch.arange(length, device=device) // nsa["select_block"]
        # Cells of d tokens that compressed token j and block i share.
        begin = torch.arange(p_cmp.shape[-1], device=device)[:, None] * nsa["stride"]
        first = block[None] * nsa["select_block"]
        shared = torch.minimum(begin + nsa["block"], first + nsa["select_block"]) - torch.maximum(begin, first)
        cells = shared.clamp(min=0).float() / nsa["stride"]
        scores = p_cmp.unflatten(1, (groups, -1)).sum(2) @ cells
        visible = block[None] <= own[:, None]
        forced = (block[None] < nsa["init"]) | (block[None] > own[:, None] - nsa["local"])
        scores = scores.masked_fill(forced, torch.inf).masked_fill(~visible, -torch.inf)
        order = scores.sort(dim=-1, descending=True, stable=True).indices[..., : nsa["select"]]
        taken = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order, True)
        return taken & visible

    def sparse(self, x, q, positions):
        nsa, config = self.config.nsa, self.config
        length = x.shape[1]
        scale = config.head_dim**-0.5
        kvs = [self.keys_values(x, branch) for branch in self.branches]
        (k_cmp, v_cmp), (k_slc, v_slc), (k_win, v_win) = kvs if len(kvs) == 3 else kvs * 3
        k_slc, k_win = rotate(k_slc, positions, config), rotate(k_win, positions, config)
        t = positions[:, None]
        causal = positions[None] <= t

        if length >= nsa["block"]:
            if nsa["compress_rope"] == "BEFORE":
                k_cmp = rotate(k_cmp, positions, config)
            k_sum, v_sum = self.phi_k(k_cmp), self.phi_v(v_cmp)
            begins = torch.arange(k_sum.shape[1], device=x.device) * nsa["stride"]
            if nsa["compress_rope"] == "AFTER":
                k_sum = rotate(k_sum, begins, config)
            p_cmp = probabilities(q, k_sum, begins[None] + nsa["block"] - 1 <= t, scale)
            o_cmp = weighted(p_cmp, v_sum)
        else:
            p_cmp = q.new_zeros((q.shape[0], q.shape[2], length, 0), dtype=torch.float32)
            o_cmp = q.new_zeros((*q.shape[:3], config.value_head_dim))

        taken = self.select(p_cmp, length).repeat_interleave(nsa["select_block"], dim=-1)[..., :length]
        taken = taken.repeat_interleave(q.shape[2] // taken.shape[1], dim=1) & causal
        o_slc = weighted(probabilities(q, k_slc, taken, scale), v_slc)
        o_win = weighted(probabilities(q, k_win, causal & (t - positions[None] < nsa["window"]), scale), v_win)
        gates = torch.sigmoid(self.gate_proj(x).float()).to(x.dtype).view(*q.shape[:3], 3)
        return gates[..., 0:1] * o_cmp + gates[..., 1:2] * o_slc + gates[..., 2:3] * o_win

    def forward(self, x, positions):
        config = self.config
        q = self.q_proj(x).view(*x.shape[:2], config.num_attention_heads, config.head_dim)
        if config.qk_norm:
            q = self.q_norm(q)
        q = rotate(q, positions, config)
        if self.kind == "NSA":
            out = self.sparse(x, q, positions)
        else:
            k, v = self.keys_values(x, "")
            distance = positions[:, None] - positions[None]
            mask = distance >= 0
            if self.kind == "WINDOW":
                mask = mask & (distance < config.nsa["window"])
            out = weighted(probabilities(q, rotate(k, positions, config), mask, config.head_dim**-0.5), v)
        return self.o_proj(out.flatten(-2))


class LongspanMlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LongspanLayer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = LongspanAttention(config, layer)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = LongspanMlp(config)

    def forward(self, x, positions):
        x = x + self.self_attn(self.input_layernorm(x), positions)
        return x + self.mlp(self.post_attention_layernorm(x))


class LongspanModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LongspanLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, input_ids):
        x = self.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        for layer in self.layers:
            x = layer(x, positions)
        return self.norm(x)


class LongspanForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = LongspanConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    accepts_loss_kwargs = False  # the loss is a mean over the labels of the call
    _no_split_modules = ["LongspanModel"]  # whole on one device: a tied head reads the embedding

    def __init__(self, config):
        super().__init__(config)
        self.model = LongspanModel(config)
        # A tied head is the embedding itself: there is no module, and nothing to tie.
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def tie_weights(self, *args, **kwargs):
        pass

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **kwargs):
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(self, input_ids, attention_mask=None, labels=None, **kwargs):
        if attention_mask is not None and not bool(attention_mask.bool().all()):
            raise ValueError("expected sequences without padding: each row of input_ids is one document")
        for name in ("inputs_embeds", "position_ids", "past_key_values"):
            if kwargs.get(name) is not None:
                raise ValueError(f"{name}: expected none, tokens alone")
        x = self.model(input_ids)
        logits = F.linear(x, self.model.embed_tokens.weight) if self.lm_head is None else self.lm_head(x)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits)
