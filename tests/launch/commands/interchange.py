"""interchange.py LONGSPAN SOURCE: models of transformers and Longspan's say the same, in F32 on a CPU.

Dense models of transformers are imported and read as they are; Longspan's are trained a little, exported and read by
modeling_longspan.py. Prints the largest error of a logit of each. Without PyTorch and transformers it ends with 77.
"""

import os
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # all is here: nothing is asked for, where there may be no network

try:
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

LONGSPAN, SOURCE = sys.argv[1:3]
TOLERANCE = 1e-4
failures = 0


def longspan(*arguments):
    result = subprocess.run([LONGSPAN, *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"longspan {' '.join(arguments)}: {result.returncode}\n{result.stdout}{result.stderr}")


def logits_of(run, ids, folder):
    path = os.path.join(folder, "logits.safetensors")
    longspan("generate", run, "--ids", "--prompt", " ".join(map(str, ids)), "--tokens", "1", "--logits", path,
             "runtime.device=CPU")
    return load_file(path)["logits"][: len(ids)]


def compare(name, model, ids, ours):
    global failures
    with torch.no_grad():
        theirs = model.eval()(torch.tensor([ids])).logits[0].float()
    error = (theirs - ours).abs().max().item()
    good = error <= TOLERANCE * max(1.0, theirs.abs().max().item())
    failures += not good
    print(f"{name:<28} largest error of a logit {error:.2e}{'' if good else '  OFF'}", flush=True)


def dense():
    common = dict(vocab_size=97, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=8,
                  num_key_value_heads=2, max_position_embeddings=512, torch_dtype=torch.float32, attn_implementation="eager")
    models = {
        "Llama": ("LlamaConfig", "LlamaForCausalLM", dict(tie_word_embeddings=False)),
        "Llama, tied": ("LlamaConfig", "LlamaForCausalLM", dict(tie_word_embeddings=True)),
        "Mistral, sliding": ("MistralConfig", "MistralForCausalLM", dict(sliding_window=50)),
        "Qwen 3": ("Qwen3Config", "Qwen3ForCausalLM", dict(head_dim=16, tie_word_embeddings=True)),
    }
    for name, (config, model, keys) in models.items():
        if not hasattr(transformers, model):
            print(f"{name:<28} not in transformers {transformers.__version__}")
            continue
        torch.manual_seed(1)
        made = getattr(transformers, model)(getattr(transformers, config)(**common, **keys)).float()
        for parameter in made.parameters():  # norms of all ones would hide a mistake
            parameter.data += 0.02 * torch.randn_like(parameter)
        with tempfile.TemporaryDirectory() as folder:
            made.save_pretrained(os.path.join(folder, "theirs"))
            longspan("import", os.path.join(folder, "theirs"), os.path.join(folder, "ours"), "--attention", "FULL")
            ids = torch.randint(97, (200,)).tolist()
            compare(name, made, ids, logits_of(os.path.join(folder, "ours"), ids, folder))


def sparse():
    variants = {
        "NSA": [],
        "NSA and FULL, QK-norm": ["model.attention=NSA,FULL", "model.qk_norm=true"],
        "WINDOW, untied": ["model.attention=WINDOW", "model.tied_head=false", "model.nsa.window=16"],
        "LINEAR, BEFORE": ["model.nsa.phi=LINEAR", "model.nsa.compress_rope=BEFORE"],
        "MEAN, SHARED": ["model.nsa.phi=MEAN", "model.nsa.kv_branches=SHARED"],
        "YaRN": ["model.rope.scaling=YARN", "model.rope.factor=4", "model.rope.original_max_position=64"],
    }
    for name, keys in variants.items():
        with tempfile.TemporaryDirectory() as folder:
            longspan("train", "--config", os.path.join(SOURCE, "configs/fibonacci.textproto"), f"output={folder}",
                     "runtime.device=CPU", "train.steps=30", "train.eval_interval=0", *keys)
            run, exported = os.path.join(folder, "fibonacci"), os.path.join(folder, "exported")
            longspan("export", run, exported)
            model = transformers.AutoModelForCausalLM.from_pretrained(exported, trust_remote_code=True,
                                                                      torch_dtype=torch.float32)
            ids = [1, 1]
            while len(ids) < 150:
                ids.append((ids[-1] + ids[-2]) % 10 if len(ids) % 7 else len(ids) % 10)
            compare(name, model, ids, logits_of(run, ids, folder))


def exported_dense():
    for name, keys in {"export --dense, Llama": [], "export --dense, Qwen 3": ["model.qk_norm=true"]}.items():
        with tempfile.TemporaryDirectory() as folder:
            longspan("train", "--config", os.path.join(SOURCE, "configs/fibonacci.textproto"), f"output={folder}",
                     "runtime.device=CPU", "train.steps=30", "train.eval_interval=0", "model.attention=FULL", *keys)
            run, exported = os.path.join(folder, "fibonacci"), os.path.join(folder, "exported")
            longspan("export", run, exported, "--dense")
            model = transformers.AutoModelForCausalLM.from_pretrained(exported, torch_dtype=torch.float32)
            ids = [i % 10 for i in range(150)]
            compare(name, model, ids, logits_of(run, ids, folder))


print(f"torch {torch.__version__}, transformers {transformers.__version__}")
dense()
sparse()
exported_dense()
sys.exit(failures > 0)
