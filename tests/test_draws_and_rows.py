"""Networks that draw random numbers, ids that no table has, inputs that no box holds: all speak."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lrp_jax as lrp
from lrp_jax import baselines
from lrp_jax.questions import ensemble_relevance

KEY = jax.random.key(3)
X = jax.random.normal(jax.random.key(0), (3, 4))
W = {"a": jnp.ones((4, 5)), "b": jnp.arange(10.0).reshape(5, 2)}

# Random numbers


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(5)(x)))
        return nn.Dense(2)(x)


class Nnx(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.a, self.b = nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.b(self.drop(nnx.relu(self.a(x))))


class Equinox(eqx.Module):
    a: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __init__(self) -> None:
        self.a, self.drop = eqx.nn.Linear(4, 5, key=KEY), eqx.nn.Dropout(0.5)

    def __call__(self, x: jax.Array, key: Any) -> jax.Array:
        return self.drop(self.a(x), key=key)


def haiku(train: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    def model(x: jax.Array) -> jax.Array:
        x = jax.nn.relu(hk.Linear(5)(x))
        x = hk.dropout(hk.next_rng_key(), 0.5 if train else 0.0, x)
        return hk.Linear(2)(x)

    net = hk.transform(model)
    params = net.init(jax.random.PRNGKey(0), X)
    return (lambda p, x, key: net.apply(p, key, x)), (params, X, jax.random.PRNGKey(1))


def linen(train: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    params = Linen().init(jax.random.key(1), X)
    return (lambda p, x: Linen().apply(p, x, train, rngs={"dropout": jax.random.key(2)})), (
        params,
        X,
    )


def flax_nnx(train: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    model = Nnx()
    model.train() if train else model.eval()
    return (lambda m, x: m(x)), (model, X)


def equinox(train: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    model = eqx.nn.inference_mode(Equinox(), not train)
    return (lambda m, x, keys: jax.vmap(m)(x, keys)), (model, X, jax.random.split(KEY, 3))


def in_a_loop(train: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    def model(w: Any, x: jax.Array) -> jax.Array:
        def layer(h: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            kept = jax.random.bernoulli(key, 0.5, h.shape) if train else jnp.ones(h.shape)
            return jnp.where(kept, jnp.tanh(h), 0.0), None

        h, _ = jax.lax.scan(jax.checkpoint(layer), x @ w["a"], jax.random.split(KEY, 4))
        return h @ w["b"]

    return model, (W, X)


def noise(train: bool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    def model(w: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        h = x @ w["a"]
        return (h + (jax.random.normal(key, h.shape) if train else 0.0)) @ w["b"]

    return model, (W, X, KEY)


@pytest.mark.parametrize("make", [linen, flax_nnx, equinox, haiku, in_a_loop, noise])
def test_random_numbers_are_warned_of_and_a_network_that_predicts_is_not(make: Any) -> None:
    function, args = make(train=True)
    (warning,) = lrp.plan(function, lrp.EpsilonPlus())(*args).warnings
    assert "draws random numbers" in warning
    assert "test_draws_and_rows.py" in warning or "site-packages" in warning
    for ask in (lrp.relevance, lrp.lrp_transform, lrp.conservation):
        with pytest.warns(UserWarning, match=r"(?s)draws random.*predicts.*ensemble_relevance"):
            ask(function, lrp.EpsilonPlus())(*args)
    with pytest.raises(ValueError, match=r"(?s)strict=True.*draws random numbers"):
        lrp.plan(function, lrp.EpsilonPlus(), strict=True)(*args)
    function, args = make(train=False)
    assert lrp.plan(function, lrp.EpsilonPlus())(*args).warnings == ()


def random_features(w: Any, x: jax.Array) -> jax.Array:
    """A constant of the code, made as such constants are."""
    return jnp.cos(x @ jax.random.normal(jax.random.key(5), (4, 5))) @ w["b"]


def splits_in_vain(w: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
    """Its key goes on, and a draw that nobody explained reads."""
    key, other = jax.random.split(key)
    return (x @ w["a"]) @ w["b"], (key, jax.random.bernoulli(other, 0.5, (3,)))


def test_what_is_no_draw() -> None:
    assert lrp.plan(random_features, lrp.Epsilon())(W, X).warnings == ()
    plan = lrp.plan(splits_in_vain, lrp.Epsilon(), has_aux=True)(W, X, KEY)
    assert plan.warnings == ()


@pytest.mark.parametrize("old", [False, True], ids=["typed", "raw"])
def test_an_ensemble_over_keys_asks_for_draws(old: bool) -> None:
    def apply(w: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key, 0.5, (5,)), x @ w["a"], 0.0) @ w["b"]

    keys = jax.random.split(jax.random.PRNGKey(0) if old else KEY, 6)
    found = ensemble_relevance(apply, lrp.Zero(), params_argnum=2)(W, X, keys, target=1)
    one_by_one = []
    for key in keys:
        with pytest.warns(UserWarning, match="draws random numbers"):
            one_by_one.append(lrp.relevance(apply, lrp.Zero())(W, X, key, target=1))
    np.testing.assert_allclose(found.members, jnp.stack(one_by_one), rtol=1e-5, atol=1e-5)
    members = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), W)
    with pytest.warns(UserWarning, match="draws random numbers"):
        ensemble_relevance(apply, lrp.Zero())(members, X, KEY)


# Rows of tables

TABLES = {
    "table": jnp.arange(15.0).reshape(5, 3) + 1,
    "places": jnp.arange(12.0).reshape(4, 3) + 1,
    "head": jnp.arange(6.0).reshape(3, 2) + 1,
}


def looks_up(w: Any, ids: jax.Array) -> jax.Array:
    return w["table"][ids].mean(-2) @ w["head"]


def takes(w: Any, ids: jax.Array) -> jax.Array:
    return jnp.take(w["table"], ids, axis=0).mean(-2) @ w["head"]


def with_offset(w: Any, ids: jax.Array) -> jax.Array:
    return w["table"][ids + 1].mean(-2) @ w["head"]


def clips(w: Any, ids: jax.Array) -> jax.Array:
    return w["table"][jnp.clip(ids, 0, 4)].mean(-2) @ w["head"]


def pads(w: Any, ids: jax.Array) -> jax.Array:
    rows = w["table"][jnp.where(ids < 0, 0, ids)]
    return (rows * (ids >= 0)[..., None]).mean(-2) @ w["head"]


def one_hot(w: Any, ids: jax.Array) -> jax.Array:
    return (jax.nn.one_hot(ids, 5) @ w["table"]).mean(-2) @ w["head"]


def positions(w: Any, ids: jax.Array) -> jax.Array:
    """A text may be longer than the positions that there are."""
    places = w["places"][jnp.arange(ids.shape[-1])]
    return (w["table"][ids] + places).mean(-2) @ w["head"]


def filled(w: Any, ids: jax.Array) -> jax.Array:
    return w["table"].at[ids].get(mode="fill", fill_value=0.0).mean(-2) @ w["head"]


def asked(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert {w.filename for w in caught} <= {__file__}
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("function", "ids", "message"),
    [
        (looks_up, [[0, 4, 2]], ""),
        (looks_up, [[0, 5, 2]], "table has 5 rows and is asked for row 5"),
        (looks_up, [[0, -9, 2]], "5 rows and is asked for row -9"),
        (looks_up, [[0, -1, 2]], "asked for row -1, which JAX counts from the end of its 5 rows"),
        (takes, [[0, 4, 2]], ""),
        (takes, [[0, 7, 2]], "table has 5 rows and is asked for row 7"),
        (with_offset, [[-1, 3, 2]], ""),
        (with_offset, [[0, 4, 2]], "5 rows and is asked for row 5"),
        (clips, [[-1, 9, 2]], ""),
        (pads, [[-1, 4, -100]], ""),
        (one_hot, [[-1, 4, 2]], ""),
        (lambda w, ids: w["table"][ids[0, 0]] @ w["head"], [[5, 9]], "asked for row 5"),
        (positions, [[0, 1, 2, 3]], ""),
        (positions, [[0, 1, 2, 3, 4, 0]], "places has 4 rows and is asked for row [45]"),
        (filled, [[0, 9, 5]], ""),
        (lambda w, ids: w["table"][ids[0, 0]] @ w["head"], [[4, 9]], ""),
    ],
)
def test_ids_that_no_table_has(function: Any, ids: list[Any], message: str) -> None:
    ids = jnp.array(ids)
    explain = lrp.relevance(function, lrp.Zero())
    for ask in (explain, baselines.gradient(function)):
        texts = asked(lambda ask=ask: ask(TABLES, ids))
        assert len(texts) == bool(message)
        assert re.search(message, "".join(texts))
    if function is not positions:  # these are the code's
        assert asked(lambda: jax.jit(explain)(TABLES, ids)) == []  # values are unknown
    assert lrp.plan(function, lrp.Zero(), strict=True)(TABLES, ids).warnings == ()


def test_ids_inside_of_another_program() -> None:
    """They can be read where they belong to the code, and not where they are its arguments."""
    shift, outside = jnp.array(1), jnp.array([[0, 5, 2]])
    explain = lrp.relevance(looks_up, lrp.Zero())
    (text,) = asked(lambda: jax.jit(lambda w: explain(w, outside))(TABLES))
    assert "asked for row 5" in text
    inside = jax.vmap(lambda ids: explain(TABLES, ids))
    assert asked(lambda: inside(outside[None])) == []

    def closes_over(w: Any, table: jax.Array, by: jax.Array) -> jax.Array:
        shifted = lrp.relevance(lambda w, ids: table[ids + by].mean(-2) @ w["head"], lrp.Zero())
        return shifted(w, outside)

    assert asked(lambda: jax.jit(closes_over)(TABLES, TABLES["table"], shift)) == []
    (text,) = asked(lambda: jax.jit(closes_over, static_argnums=2)(TABLES, TABLES["table"], 1))
    assert "asked for row 6" in text


def test_prompts_and_corrupted_ids_that_no_table_has() -> None:
    def copy(w: Any, ids: jax.Array) -> jax.Array:
        e = w["table"][ids]
        return jnp.concatenate([e[:1], e[:-1]]) @ w["head"]

    generate = lrp.explain_generation(copy, lrp.Zero())
    assert asked(lambda: generate(TABLES, [0, 1], [1, 1])) == []
    (text,) = asked(lambda: generate(TABLES, [0, 6], [1, 1]))
    assert "asked for row 6" in text
    patch = lrp.patching(looks_up, lrp.Zero(), "head")
    clean, corrupted = jnp.array([[0, 4]]), jnp.array([[0, 5]])
    assert asked(lambda: patch(TABLES, clean, clean)) == []
    (text,) = asked(lambda: patch(TABLES, clean, corrupted))
    assert "asked for row 5" in text


# What explanations repeat, whoever explains


@pytest.mark.parametrize("ask", [lrp.lrp_transform, lrp.relevance_matrix, lrp.relevance])
def test_mistakes_are_repeated_by_everything_that_explains(ask: Any) -> None:
    composite = lrp.EpsilonPlus().override(("heads", lrp.Zero()))
    with pytest.warns(UserWarning, match="'heads'.*matches no layer"):
        ask(lambda w, x: x @ w["head"], composite)({"head": jnp.ones((4, 2))}, X)


# Boxes


@pytest.mark.parametrize(
    ("scale", "high", "speaks"),
    [(1.0, 1.0, False), (4.0, 3.0, False), (255.0, 1.0, True), (-1.0, 0.3, True)],
)
def test_inputs_far_outside_of_their_box_are_warned_of(
    scale: float, high: float, speaks: bool
) -> None:
    x = scale * jnp.linspace(0.0, 1.0, 12).reshape(3, 4)
    composite = lrp.Composite([(lrp.first(lrp.Dense), lrp.ZBox(0.0, jnp.full(4, high)))])
    explain = lrp.relevance(lambda w, x: jax.nn.relu(x.T.T @ w["a"]) @ w["b"], composite)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explain(W, x)
        explain(W, x)  # the data are looked at once for each kind of call
        jax.jit(lrp.relevance(lambda w, x: x @ w["a"], composite))(
            W, x
        )  # and not where they are traced
    assert len(caught) == speaks
    assert all("at a: low and high" in str(w.message) for w in caught)
