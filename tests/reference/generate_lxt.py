"""Store what LXT computes for the zoo's transformers, as `lxt_transformers.npz`.

Run from the repository root, in an environment of its own for these old releases:

    pip install torch==2.13.0 transformers==4.52.4 tabulate jax flax pytest
    pip install --no-deps lxt==2.1 zennit==0.5.1
    python tests/reference/generate_lxt.py

LXT edits classes for the whole process and cannot take it back, so every case runs in a process of
its own. It wants torchvision only for a model that is not used here; a stand-in keeps the import
going. The vision transformer is left out for that reason, and BERT has no CP-LRP there. All of it
is float32.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TARGET = 2
FAMILIES = ("llama", "qwen2", "qwen3", "gemma3", "gpt2", "bert")
CASES = [(family, "attn") for family in FAMILIES] + [(family, "cp") for family in FAMILIES[:-1]]


def without_torchvision() -> None:
    import torch
    import transformers  # noqa: F401  (looks for torchvision once, before there is a stand-in)

    for name in ("", ".models", ".models.vision_transformer", ".models.resnet", ".models.vgg"):
        module = types.ModuleType("torchvision" + name)
        module.__dict__.update(nn=torch.nn, ResNet=None, BasicBlock=None, Bottleneck=None, VGG=None)
        sys.modules["torchvision" + name] = module
    sys.modules["torchvision.models"].vision_transformer = sys.modules[  # type: ignore[attr-defined]
        "torchvision.models.vision_transformer"
    ]


def linear(name: str, p: Any, width: int, transposed: bool = False) -> dict[str, np.ndarray]:
    """A kernel (in, head, feature), (head, feature, out) or (in, out) as torch's (out, in)."""
    kernel = np.asarray(p["kernel"], np.float32)
    if kernel.ndim == 3:
        kernel = kernel.reshape((width, -1) if kernel.shape[0] == width else (-1, width))
    state = {f"{name}.weight": kernel if transposed else kernel.T}
    if "bias" in p:
        state[f"{name}.bias"] = np.asarray(p["bias"], np.float32).reshape(-1)
    return state


def norm(name: str, p: Any) -> dict[str, np.ndarray]:
    state = {f"{name}.weight": np.asarray(p["scale"], np.float32)}
    return state | ({f"{name}.bias": np.asarray(p["bias"], np.float32)} if "bias" in p else {})


def decoder_state(params: Any, gemma: bool) -> dict[str, np.ndarray]:
    width = params["lm_head"]["kernel"].shape[0]
    state = norm("model.norm", params["final_norm"]) | linear("lm_head", params["lm_head"], width)
    for i in range(2):
        p, at = params[f"layer_{i}"], f"model.layers.{i}"
        for name in "qkvo":
            state |= linear(f"{at}.self_attn.{name}_proj", p["attn"][name], width)
        for name in ("q_norm", "k_norm"):
            if name in p["attn"]:
                state |= norm(f"{at}.self_attn.{name}", p["attn"][name])
        for name in ("gate", "up", "down"):
            state |= linear(f"{at}.mlp.{name}_proj", p["mlp"][name], width)
        state |= norm(f"{at}.input_layernorm", p["attn_norm"])
        if gemma:
            state |= norm(f"{at}.post_attention_layernorm", p["attn_post_norm"])
            state |= norm(f"{at}.pre_feedforward_layernorm", p["mlp_norm"])
            state |= norm(f"{at}.post_feedforward_layernorm", p["mlp_post_norm"])
        else:
            state |= norm(f"{at}.post_attention_layernorm", p["mlp_norm"])
    return state


def gpt2_state(params: Any) -> dict[str, np.ndarray]:
    width = params["lm_head"]["kernel"].shape[0]
    state = norm("transformer.ln_f", params["ln_f"]) | linear("lm_head", params["lm_head"], width)
    state["transformer.wpe.weight"] = np.asarray(params["wpe"], np.float32)
    for i in range(2):
        p, at = params[f"layer_{i}"], f"transformer.h.{i}"
        state |= norm(f"{at}.ln_1", p["ln_1"]) | norm(f"{at}.ln_2", p["ln_2"])
        for name in ("c_attn", "c_proj"):
            state |= linear(f"{at}.attn.{name}", p["attn"][name], width, transposed=True)
        state |= linear(f"{at}.mlp.c_fc", p["mlp"]["fc1"], width, transposed=True)
        state |= linear(f"{at}.mlp.c_proj", p["mlp"]["fc2"], width, transposed=True)
    return state


def bert_state(params: Any) -> dict[str, np.ndarray]:
    width = params["classifier"]["kernel"].shape[0]
    state = norm("bert.embeddings.LayerNorm", params["ln"])
    state["bert.embeddings.position_embeddings.weight"] = np.asarray(params["position"], np.float32)
    kind = np.asarray(params["token_type"], np.float32)
    state["bert.embeddings.token_type_embeddings.weight"] = np.stack([kind, kind])
    state |= linear("bert.pooler.dense", params["pooler"], width)
    state |= linear("classifier", params["classifier"], width)
    for i in range(2):
        p, at = params[f"layer_{i}"], f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            state |= linear(f"{at}.attention.self.{name}", p["attention"][name], width)
        state |= linear(f"{at}.attention.output.dense", p["attention"]["out"], width)
        state |= norm(f"{at}.attention.output.LayerNorm", p["ln_1"])
        state |= linear(f"{at}.intermediate.dense", p["mlp"]["fc1"], width)
        state |= linear(f"{at}.output.dense", p["mlp"]["fc2"], width)
        state |= norm(f"{at}.output.LayerNorm", p["ln_2"])
    return state


def patched(family: str, method: str) -> tuple[Any, Any]:
    """The family's model class, edited by LXT, and a configuration of the zoo's sizes."""
    import importlib

    import transformers
    from lxt.efficient import monkey_patch

    maps = importlib.import_module(f"lxt.efficient.models.{family}")
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    monkey_patch(module, maps.attnLRP if method == "attn" else maps.cp_LRP)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 7}
    sizes |= {"intermediate_size": 16, "pad_token_id": 0, "attn_implementation": "eager"}
    grouped = sizes | {"num_key_value_heads": 2, "head_dim": 4, "rms_norm_eps": 1e-6}
    grouped |= {"rope_theta": 10000.0, "tie_word_embeddings": False}
    if family == "gemma3":
        grouped |= {"query_pre_attn_scalar": 4, "rope_local_base_freq": 10000.0}
        return module.Gemma3ForCausalLM, transformers.Gemma3TextConfig(**grouped)
    if family == "gpt2":
        config = transformers.GPT2Config(
            n_embd=12, n_layer=2, n_head=4, n_inner=16, n_positions=5, vocab_size=7,
            attn_implementation="eager", tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return module.GPT2LMHeadModel, config
    if family == "bert":
        config = transformers.BertConfig(**sizes, max_position_embeddings=5, num_labels=7)
        return module.BertForSequenceClassification, config
    name = family.capitalize()
    return getattr(module, f"{name}ForCausalLM"), getattr(transformers, f"{name}Config")(**grouped)


def compute(family: str, method: str) -> tuple[np.ndarray, np.ndarray]:
    """The logit and the relevance of the embeddings."""
    import torch

    sys.path.insert(0, str(HERE.parent))
    from zoo import ZOO

    without_torchvision()
    _, params, x = ZOO[f"{family}_plain"].build(np.float32)
    make, config = patched(family, method)
    model = make(config).eval()
    state = {
        "gpt2": gpt2_state,
        "bert": bert_state,
        "gemma3": lambda p: decoder_state(p, gemma=True),
    }.get(family, lambda p: decoder_state(p, gemma=False))(params)
    loaded = model.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
    left = [key for key in loaded.missing_keys if "embed_tokens" not in key and "wte" not in key]
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    assert all("word_embeddings" in key for key in left), left
    embeddings = torch.tensor(np.asarray(x)).requires_grad_()
    arguments: dict[str, Any] = {"inputs_embeds": embeddings}
    if family == "gemma3":
        arguments["inputs_embeds"] = embeddings * 12**0.5
    if family == "bert":
        arguments["attention_mask"] = torch.tensor([[1, 1, 1, 1, 0]] * len(x))
    else:
        arguments["use_cache"] = False
    logits = model(**arguments).logits
    logit = (logits if family == "bert" else logits[:, -1])[:, TARGET]
    logit.sum().backward()
    assert embeddings.grad is not None
    return logit.detach().numpy(), (embeddings * embeddings.grad).detach().numpy()


def main() -> None:
    if len(sys.argv) == 4:
        family, method, path = sys.argv[1:]
        logit, relevance = compute(family, method)
        np.savez(path, logit=logit, relevance=relevance)
        return
    arrays = {}
    for family, method in CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/case.npz"
            subprocess.run([sys.executable, __file__, family, method, path], check=True)
            with np.load(path) as case:
                arrays |= {f"{family}_{method}_{name}": case[name] for name in case.files}
        print(family, method)
    np.savez(HERE / "lxt_transformers.npz", **arrays)


if __name__ == "__main__":
    main()
