"""Prompts of known truth: what a planted model takes for its reason is found, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import baselines
from lrp_jax.evaluation import language
from lrp_jax.evaluation.language import Prompt, tasks

TASKS = {
    "agreement": language.agreement(),
    "indirect objects": language.indirect_objects(),
    "needles": language.needles(sentences=3),
    "passages": language.passages(),
}


class Words:
    """A tokenizer of words and points, which learns its ids from the tasks."""

    def __init__(self) -> None:
        texts = [p.text + p.right + p.wrong for task in TASKS.values() for p in task]
        self.pieces = sorted({piece for text in texts for piece in self.split(text)})

    def split(self, text: str) -> list[str]:
        return re.findall(r"[^\s.,]+|[.,]", text)

    def __call__(self, text: str) -> Sequence[int]:
        return [self.pieces.index(piece) for piece in self.split(text)]


WORDS = Words()


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_what_they_say(task: str) -> None:
    prompts = TASKS[task]
    assert (
        len({p.text for p in prompts})
        == len(prompts)
        == {"agreement": 72, "needles": 18}.get(task, 24 if task == "passages" else 60)
    )
    # Nothing but the text tells which continuation is right.
    assert {p.right for p in prompts} == {p.wrong for p in prompts}
    for p in prompts:
        parts = {name: p.text[a:b] for name, (a, b) in p.spans.items()}
        others = "".join(text for name, text in parts.items() if name != p.reason)
        if task == "agreement":
            plural = parts["subject"].endswith("s")
            assert plural != parts["attractor"].endswith("s")
            assert (p.right, p.wrong) == ((" are", " is") if plural else (" is", " are"))
        elif task == "indirect objects":
            assert p.text.count(p.right) == 1
            assert p.text.count(p.wrong) == 2
            assert parts["indirect object"] == p.right
            assert parts["subject"] == parts["subject again"] == p.wrong
        else:
            assert p.right in parts[p.reason]
            assert p.right not in others
            assert (p.wrong in others) == (task == "passages")
            for name in p.removable:
                assert p.without(name) == p.text.replace(parts[name], "", 1)


def test_prompts_as_ids() -> None:
    encoded = language.encode(TASKS["passages"], WORDS, start=[99], pad=7, width=30)
    assert encoded.ids.shape == (24, 30)
    assert (encoded.lengths == 1 + 4 * 5 + 3).all()
    for i, p in enumerate(encoded.prompts):
        assert WORDS.pieces[encoded.right[i]] == p.right.strip()
        assert WORDS.pieces[encoded.wrong[i]] == p.wrong.strip()
        assert encoded.ids[i, 0] == 99
        for name, (a, b) in p.spans.items():
            words = [WORDS.pieces[n] for n in encoded.ids[i][encoded.spans[i][name]]]
            assert words == WORDS.split(p.text[a:b])
        ids, length = encoded.shorter[i]["passage 0"]
        assert length == encoded.lengths[i] - 5
        assert (ids[length:] == 7).all()
        assert list(ids[:length]) == [99, *WORDS(p.without("passage 0"))]


def test_answers_that_begin_alike() -> None:
    """What both begin with is part of the prompt."""
    prompt = Prompt("ab", " cd", " ce", {"a": (0, 1)}, "a")
    letters = lambda text: [ord(x) for x in text]  # noqa: E731
    encoded = language.encode([prompt], letters)
    assert "".join(map(chr, encoded.ids[0])) == "ab c"
    assert (chr(encoded.right[0]), chr(encoded.wrong[0])) == ("d", "e")
    with pytest.raises(ValueError, match="the same ids"):
        language.encode([Prompt("ab", " c", " c", {"a": (0, 1)}, "a")], letters)
    with pytest.raises(ValueError, match="changes the ids"):
        language.encode([prompt], lambda text: [len(text), *map(ord, text)])
    with pytest.raises(ValueError, match="no prompts"):
        language.encode([], letters)
    with pytest.raises(ValueError, match="among"):
        Prompt("ab", " c", " d", {"a": (0, 1)}, "b")


# A planted model: the name asked for is looked up, and what stood behind it is copied -------------

SIZE = len(WORDS.pieces)
NAMES = np.array([piece in tasks._NAMES for piece in WORDS.pieces])
MODEL = {"table": jnp.eye(SIZE), "key": jnp.diag(60.0 * NAMES), "head": 3 * jnp.eye(SIZE)}


def copying(w: Any, ids: Any) -> Any:
    """Attends from each "lives in" to the city behind an earlier one of the same name."""
    e = w["table"][ids]
    asked = jnp.roll(e, 2, 1)  # the name is two before "in"
    stood = jnp.roll(e, 3, 1)  # and three before the city
    scores = jnp.einsum("btd,de,bse->bts", asked, w["key"], stood)
    earlier = jnp.tril(jnp.ones(scores.shape[-2:], bool), -1)
    return jax.nn.softmax(jnp.where(earlier, scores, -1e9)) @ e @ w["head"]


METHODS = {
    "CP-LRP": lrp.relevance(copying, lrp.CPLRP()),
    "gradient x input": baselines.input_x_gradient(copying),
    "nothing": lambda w, ids, target: jnp.zeros(ids.shape),
    "the end": lambda w, ids, target: jnp.zeros(ids.shape).at[:, 22].set(1.0),
}
ENCODED = language.encode(TASKS["passages"], WORDS)


def test_a_planted_reason_is_found() -> None:
    found = language.compare(copying, METHODS, batch=10, fill=0)(MODEL, ENCODED)
    assert found.accuracy == 1
    for measure in ("above", "first", "share", "left out"):
        np.testing.assert_allclose(found.values["CP-LRP"][measure], 1, atol=1e-6)
        np.testing.assert_allclose(found.values["the end"][measure], 0)
    assert (found.values["nothing"]["above"] == 0).all()
    assert (found.values["nothing"]["share"] == 0).all()
    # The city flipped first takes the score at once.
    assert found.mean("CP-LRP", "flipping") > 0.4 > 0 > found.mean("the end", "flipping")
    assert found.interval("CP-LRP", "share") == pytest.approx((1, 1), abs=1e-6)
    lines = str(found).splitlines()
    assert lines[0].split() == ["method", "above", "first", "share", "left", "out", "flipping"]
    assert lines[2].startswith("CP-LRP            1.00 [1.00, 1.00]")
    assert lines[-1] == "24 prompts on which the model is right, 100% of all"


def test_values_by_hand() -> None:
    """Prompts that the model gets wrong do not count; a draw of two is a known interval."""
    prompts = [Prompt("a b", " c", " d", {"one": (0, 1), "two": (1, 3)}, "one")] * 2
    prompts += [Prompt("a b", " d", " c", {"one": (0, 1), "two": (1, 3)}, "one")]
    encoded = language.encode(prompts, lambda text: [ord(x) - 97 for x in text.split()])
    apply = lambda w, ids: jnp.broadcast_to(jnp.array([0.0, 0, 5, 1]), (*ids.shape, 4))  # noqa: E731
    given = jnp.array([[3.0, 1.0], [1.0, 3.0], [9.0, 9.0]])
    methods = {"given": lambda w, ids, target: given[: len(ids)]}
    found = language.compare(apply, methods)(None, encoded)
    assert found.accuracy == pytest.approx(2 / 3)
    values = found.values["given"]
    assert values.keys() == {"above", "first", "share"}
    assert values["above"].tolist() == values["first"].tolist() == [1, 0]
    assert values["share"].tolist() == [0.75, 0.25]
    assert found.interval("given", "share") == (0.25, 0.75)


def test_refusals() -> None:
    everywhere = {"all": lambda w, ids, target: jnp.ones(ids.shape)}
    mixed = language.encode([*TASKS["passages"][:2], *language.passages(2)[:1]], WORDS)
    with pytest.raises(ValueError, match="not causal"):
        language.compare(copying, everywhere)(MODEL, mixed)
    with pytest.raises(ValueError, match="one for each token"):
        language.compare(copying, {"x": lambda w, ids, target: ids[:, 0]})(MODEL, ENCODED)
    wrong = MODEL | {"head": -MODEL["head"]}
    with pytest.raises(ValueError, match="right on no prompt"):
        language.compare(copying, METHODS)(wrong, ENCODED)
    with pytest.raises(ValueError, match="batch=0"):
        language.compare(copying, METHODS, batch=0)
    with pytest.raises(ValueError, match="depths"):
        language.needles(depths=[2])
    with pytest.raises(ValueError, match="count=1"):
        language.passages(1)
