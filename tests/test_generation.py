"""Answers explained token by token: rows are single explanations, a copying model shows what it
copies."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import targets

KEYS = jax.random.split(jax.random.key(5), 6)
SIZE, FEATURES = 11, 6
W = {
    "table": jax.random.normal(KEYS[0], (SIZE, FEATURES)),
    "q": jax.random.normal(KEYS[1], (FEATURES, FEATURES)),
    "v": jax.random.normal(KEYS[2], (FEATURES, FEATURES)),
    "head": jax.random.normal(KEYS[3], (FEATURES, SIZE)),
}
PROMPT, ANSWER = jnp.array([[3, 1, 4, 1], [5, 9, 2, 6]]), jnp.array([[5, 3, 5], [8, 9, 7]])
IDS = jnp.concatenate([PROMPT, ANSWER], 1)


def model(w: Any, ids: Any) -> Any:
    e = w["table"][ids]
    scores = e @ w["q"] @ jnp.swapaxes(e, -1, -2)
    causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    h = e + jax.nn.softmax(jnp.where(causal, scores, -1e9)) @ e @ w["v"]
    return jax.nn.silu(h) @ w["head"]


EXPLAIN = lrp.explain_generation(model, lrp.AttnLRP())


def close(found: Any, wanted: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_rows_are_single_explanations(chunk: int | None) -> None:
    found = lrp.explain_generation(model, lrp.AttnLRP(), chunk=chunk)(W, PROMPT, ANSWER)
    assert found.relevance.shape == (2, 3, 7)
    assert found.prompt == 4
    single = lrp.relevance(model, lrp.AttnLRP())
    for t in range(3):
        target = targets.token(position=3 + t, token=ANSWER[:, t])
        close(found.relevance[:, t], single(W, IDS, target=target))
        close(found.scores[:, t], model(W, IDS)[jnp.arange(2), 3 + t, ANSWER[:, t]])
        assert (found.relevance[:, t, 4 + t :] == 0).all()


def test_one_sequence_without_a_batch_axis_and_under_jit() -> None:
    wanted = EXPLAIN(W, PROMPT, ANSWER)
    found = jax.jit(EXPLAIN)(W, PROMPT[0], ANSWER[0])
    assert isinstance(found, lrp.Generation)
    close(found.relevance, wanted.relevance[0])
    close(found.scores, wanted.scores[0])


def test_against_other_tokens() -> None:
    whole = EXPLAIN(W, PROMPT, ANSWER)
    others = jnp.array([[0, 1, 2], [3, 4, 5]])
    contrast = EXPLAIN(W, PROMPT, ANSWER, against=others)
    single = lrp.relevance(model, lrp.AttnLRP())
    for t in range(3):
        weights = jnp.zeros((2, 7, SIZE)).at[jnp.arange(2), 3 + t, ANSWER[:, t]].set(1.0)
        weights = weights.at[jnp.arange(2), 3 + t, others[:, t]].add(-1.0)
        close(contrast.relevance[:, t], single(W, IDS, target=weights))
    logits = np.array(model(W, IDS)[:, 3:-1])
    np.put_along_axis(logits, np.asarray(ANSWER)[..., None], -np.inf, -1)
    runner_up = EXPLAIN(W, PROMPT, ANSWER, against="runner-up")
    close(runner_up.relevance, EXPLAIN(W, PROMPT, ANSWER, against=logits.argmax(-1)).relevance)
    close(runner_up.scores, whole.scores - logits.max(-1))


def copying(w: Any, ids: Any) -> Any:
    """Predicts the token that stands `back` positions before."""
    e = w["table"][ids]
    return jnp.roll(e, w["back"].shape[0] - 1, 0) @ w["head"]


@pytest.mark.parametrize("back", [1, 3, 4])
def test_a_planted_copy_is_found_in_every_row(back: int) -> None:
    w = {"table": jnp.eye(SIZE), "head": 2 * jnp.eye(SIZE), "back": jnp.zeros(back)}
    ids = [3, 1, 4, 7]
    for _ in range(6):
        ids.append(ids[-back])
    found = lrp.explain_generation(copying, lrp.Zero())(w, jnp.array(ids[:4]), jnp.array(ids[4:]))
    wanted = np.zeros((6, 10))
    wanted[np.arange(6), np.arange(6) + 4 - back] = 2
    np.testing.assert_allclose(found.relevance, wanted)
    through = np.zeros((6, 4))  # a copy of a copy comes from the prompt
    through[np.arange(6), 4 - back + np.arange(6) % back] = 2
    np.testing.assert_allclose(found.through_answer(), through, atol=1e-5)


def test_spans() -> None:
    found = EXPLAIN(W, PROMPT, ANSWER)
    words = found.spans([slice(0, 2), [2, 3], slice(4, None)])
    assert words.shape == (2, 3, 3)
    close(words[..., 1], found.relevance[..., 2:4].sum(-1))
    close(words.sum(-1), found.relevance.sum(-1))
    sentence = found.spans([slice(0, 4)], rows=[slice(None), [0]])
    close(sentence[:, 0, 0], found.relevance[..., :4].sum((1, 2)))
    close(sentence[:, 1, 0], found.relevance[:, 0, :4].sum(-1))


def test_through_the_answer_step_by_step() -> None:
    found = EXPLAIN(W, PROMPT, ANSWER)
    relevance = np.asarray(found.relevance[0])
    rows: list[Any] = []
    for t in range(3):
        handed = [relevance[t, 4 + s] * row / row.sum() for s, row in enumerate(rows)]
        rows.append(relevance[t, :4] + sum(handed))
    close(found.through_answer(0.0)[0], np.stack(rows), 1e-9)
    close(found.through_answer(0.0).sum(-1), found.relevance.sum(-1), 1e-9)


def test_it_prints() -> None:
    generation = lrp.Generation(
        jnp.array([[2.0, 0.0, -1.0, 0.0], [0.0, 0.5, 3.0, 0.0]]), jnp.array([1.0, 3.5]), 2
    )
    lines = str(generation).splitlines()
    assert [line.split()[:2] for line in lines if line[0] != "-"] == [
        ["token", "score"],
        ["2", "1"],
        ["3", "3.5"],
    ]
    assert lines[2].endswith("0 (2), 2 (-1)")
    assert "a (2), c (-1)" in generation.table([" a", "b", " c", "\n"])
    assert "c (3)" in generation.table(["a", "b", "c", "d"], top=1).splitlines()[3]
    with pytest.raises(ValueError, match="2 tokens for 4 columns"):
        generation.table(["a", "b"])
    batch = EXPLAIN(W, PROMPT, ANSWER)
    lines = str(batch).splitlines()
    assert lines[0].startswith("example  token")
    examples, answer = batch.scores.shape
    assert [line.split()[0] for line in lines[2:]] == [
        str(i) for i in range(examples) for _ in range(answer)
    ]
    assert str(batch.example(1)).splitlines()[2] == lines[2 + answer].removeprefix("1").lstrip()


def test_arguments_after_the_ids() -> None:
    scaled = lambda w, ids, factor, *, shift: model(w, ids) * factor + shift  # noqa: E731
    explain = lrp.explain_generation(scaled, lrp.AttnLRP())
    found = explain(W, PROMPT, ANSWER, 2.0, shift=jnp.zeros(()))
    close(found.relevance, 2 * EXPLAIN(W, PROMPT, ANSWER).relevance)


def test_bad_calls() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        EXPLAIN(W, PROMPT, ANSWER[:, :0])
    with pytest.raises(ValueError, match="tokens"):
        EXPLAIN(W, PROMPT, ANSWER[0])
    with pytest.raises(TypeError, match="ids"):
        EXPLAIN(W, PROMPT * 1.0, ANSWER)
    with pytest.raises(ValueError, match="runner-up"):
        EXPLAIN(W, PROMPT, ANSWER, against="best")
    with pytest.raises(ValueError, match="against has shape"):
        EXPLAIN(W, PROMPT, ANSWER, against=jnp.array([1]))
    last = lrp.explain_generation(lambda w, ids: model(w, ids)[:, -1], lrp.AttnLRP())
    with pytest.raises(ValueError, match="one for the vocabulary"):
        last(W, PROMPT, ANSWER)
