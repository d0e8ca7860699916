"""Token ids explained as they are: equal to the model split after its embedding, in every query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn, nnx

import lrp_jax as lrp
from lrp_jax import baselines, evaluation, targets

KEYS = jax.random.split(jax.random.key(0), 8)
WORDS, POSITIONS, FEATURES = 9, 5, 4


def normal(number: int, *shape: int) -> Any:
    return jax.random.normal(KEYS[number], shape)


P = {
    "embed": {"table": normal(0, WORDS, FEATURES)},
    "pos": normal(1, POSITIONS, FEATURES),
    "types": normal(4, 2, FEATURES),
    "w": normal(2, FEATURES, FEATURES),
    "o": normal(3, FEATURES, WORDS),
    "map": jnp.array([3, 1, 2, 0, 5, 4, 8, 7, 6]),
}
IDS = jnp.array([[1, 4, 2, 7, 1], [0, 3, 3, 8, 5]])
TYPES = jnp.array([[0, 0, 1, 1, 0], [1, 1, 0, 0, 1]])
TARGET = targets.token(position=-1, token=3)
COMPOSITES = {
    "AttnLRP": lrp.AttnLRP(),
    "EpsilonPlusFlat": lrp.EpsilonPlusFlat(),
    "DeepTaylor": lrp.DeepTaylor(),
    "LRPOverview": lrp.LRPOverview(-4.0, 4.0),
    "Gamma": lrp.Gamma(),
    "guided": lrp.composites.guided_backprop(),
}


def body(p: Any, e: Any) -> Any:
    e = e + p["pos"][jnp.arange(e.shape[-2])]
    scores = jax.nn.softmax(e @ p["w"] @ jnp.swapaxes(e, -1, -2))
    return jax.nn.silu((e + scores @ e) @ p["w"]) @ p["o"]


def row(p: Any, i: Any) -> Any:
    return p["embed"]["table"][i]


def by_scan(p: Any, ids: Any) -> Any:
    _, e = jax.lax.scan(lambda carry, i: (carry, row(p, i)), 0.0, ids.T)
    return jnp.swapaxes(e, 0, 1)


def in_a_branch(p: Any, ids: Any) -> Any:
    rows = lambda i: row(p, i)  # noqa: E731
    return jax.lax.cond(p["pos"][0, 0] > -100, rows, lambda i: 2 * row(p, i), ids)


def number_by_number(p: Any, ids: Any) -> Any:
    return jnp.stack([jnp.stack([row(p, ids[b, t]) for t in range(POSITIONS)]) for b in range(2)])


def take(p: Any, ids: Any, **how: Any) -> Any:
    return jnp.take(p["embed"]["table"], ids, axis=0, **how)


def hot(ids: Any, axis: int = -1) -> Any:
    return jax.nn.one_hot(ids, WORDS, axis=axis)


LOOKUPS: dict[str, Callable[[Any, Any], Any]] = {
    "index": row,
    "take": take,
    "take clipped": lambda p, i: take(p, i, mode="clip"),
    "take wrapped": lambda p, i: take(p, i, mode="wrap"),
    "shifted": lambda p, i: jnp.concatenate([P["pos"][:2], p["embed"]["table"]])[i + 2],
    "by a map": lambda p, i: p["embed"]["table"][jnp.argsort(p["map"])][p["map"][i]],
    "one-hot": lambda p, i: hot(i) @ p["embed"]["table"],
    "compared": lambda p, i: (
        (i[..., None] == jnp.arange(WORDS)).astype(float) @ p["embed"]["table"]
    ),
    "einsum": lambda p, i: jnp.einsum("vd,btv->btd", p["embed"]["table"], hot(i)),
    "one-hot in front": lambda p, i: jnp.einsum("vbt,vd->btd", hot(i, 0), p["embed"]["table"]),
    "jit": lambda p, i: jax.jit(row)(p, i),
    "checkpoint": lambda p, i: jax.checkpoint(row)(p, i),
    "scan": by_scan,
    "map": lambda p, i: jax.lax.map(lambda j: row(p, j), i),
    "cond": in_a_branch,
    "vmap": jax.vmap(row, (None, 0)),
    "vmap of one-hot": jax.vmap(lambda p, i: hot(i) @ p["embed"]["table"], (None, 0)),
    "vmap of numbers": lambda p, i: jax.vmap(jax.vmap(lambda j: row(p, j)))(i),
    "in parts": lambda p, i: row(p, jnp.concatenate([i[:, :2], i[:, 2:]], 1)),
    "number by number": number_by_number,
    "two indices": lambda p, i: jnp.stack([p["embed"]["table"]] * 3)[1, i],
    "an array and ids": lambda p, i: jnp.stack([p["embed"]["table"]] * 5)[jnp.arange(5), i],
    "dynamic": lambda p, i: row(p, jax.lax.dynamic_slice(i, (0, 0), i.shape)),
    "where": lambda p, i: row(p, jnp.where(i > 3, i, i)),
    "put back": lambda p, i: row(p, i.at[:, 0].set(i[:, 0])),
    "padded and rolled": lambda p, i: row(p, jnp.roll(jnp.pad(i, ((0, 0), (1, 0)))[:, 1:], 5, 1)),
    "fori_loop": lambda p, i: jax.lax.fori_loop(
        0, POSITIONS, lambda t, e: e.at[:, t].set(row(p, i[:, t])), jnp.zeros((*i.shape, FEATURES))
    ),
    "small integers": lambda p, i: row(p, i.astype(jnp.uint8)),
    "floats for a while": lambda p, i: row(p, i.astype(jnp.float32).astype(jnp.int32)),
}


SPLIT_RELEVANCES: dict[Any, Any] = {}


def of_split(composite: Any) -> Any:
    """Relevance of the model after its embedding, summed over features."""
    if composite not in SPLIT_RELEVANCES:
        explain = lrp.relevance(body, composite)
        SPLIT_RELEVANCES[composite] = explain(P, row(P, IDS), target=TARGET).sum(-1)
    return SPLIT_RELEVANCES[composite]


def close(found: Any, wanted: Any, tolerance: float = 1e-12) -> None:
    scale = np.abs(wanted).max()
    assert scale > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("lookup", ["index", "one-hot"])
def test_every_composite(lookup: str, composite: str) -> None:
    chosen = COMPOSITES[composite]
    whole = lambda p, i: body(p, LOOKUPS[lookup](p, i))  # noqa: E731
    found = lrp.relevance(whole, chosen)(P, IDS, target=TARGET)
    assert (found.shape, found.dtype) == (IDS.shape, jnp.float64)
    close(found, of_split(chosen))


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_every_way_to_look_up(lookup: str) -> None:
    whole = lambda p, i: body(p, LOOKUPS[lookup](p, i))  # noqa: E731
    composite = COMPOSITES["LRPOverview"]  # z-box in the first layer: relevance, no multiplier
    close(lrp.relevance(whole, composite)(P, IDS, target=TARGET), of_split(composite))


class Linen(nn.Module):
    """Words, positions and types as in BERT, and a tied head."""

    @nn.compact
    def __call__(self, ids: Any, types: Any) -> Any:
        words = nn.Embed(WORDS, FEATURES, param_dtype=float, name="words")
        h = words(ids) + nn.Embed(2, FEATURES, param_dtype=float, name="types")(types)
        h = h + nn.Embed(POSITIONS, FEATURES, param_dtype=float, name="positions")(
            jnp.arange(ids.shape[-1])
        )
        h = nn.LayerNorm(param_dtype=float)(h)
        h = h + nn.MultiHeadDotProductAttention(2, param_dtype=float)(h)
        return words.attend(nn.gelu(nn.Dense(FEATURES, param_dtype=float)(h)))


def test_linen() -> None:
    net = Linen()
    params = net.init(jax.random.key(1), IDS, TYPES)
    explain = lrp.relevance(net.apply, lrp.AttnLRP(), argnums=(1, 2))
    found = explain(params, IDS, TYPES, target=TARGET)
    layers = lrp.layer_relevances(net.apply, lrp.AttnLRP(), lrp.Embedding, argnums=(1, 2))
    features = layers(params, IDS, TYPES, target=TARGET)
    assert features.keys() == {"words", "types"}
    words, kinds = (params["params"][n]["embedding"] for n in ("words", "types"))

    def split(e: Any, t: Any) -> Any:
        def intercept(following: Any, args: Any, kwargs: Any, context: Any) -> Any:
            given = {"words": e, "types": t}.get(context.module.name)
            embeds = context.method_name == "__call__" and given is not None
            return given if embeds else following(*args, **kwargs)

        with nn.intercept_methods(intercept):
            return net.apply(params, IDS, TYPES)

    wanted = lrp.relevance(split, lrp.AttnLRP(), argnums=(0, 1))(
        words[IDS], kinds[TYPES], target=TARGET
    )
    for ids, name, relevance in zip(found, ("words", "types"), wanted, strict=True):
        close(ids, relevance.sum(-1), 1e-9)
        close(features[name], relevance, 1e-9)


def test_nnx() -> None:
    class Net(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.embed = nnx.Embed(WORDS, FEATURES, param_dtype=float, rngs=rngs)
            self.cell = nnx.RNN(nnx.GRUCell(FEATURES, 6, param_dtype=float, rngs=rngs))
            self.head = nnx.Linear(6, 3, param_dtype=float, rngs=rngs)

        def __call__(self, ids: Any) -> Any:
            return self.rest(self.embed(ids))

        def rest(self, e: Any) -> Any:
            return self.head(self.cell(e)[:, -1])

    net = Net()
    found = lrp.relevance(lambda net, i: net(i), lrp.AttnLRP())(net, IDS, target=1)
    split = lrp.relevance(lambda net, e: net.rest(e), lrp.AttnLRP())
    close(found, split(net, net.embed(IDS), target=1).sum(-1), 1e-9)


def two_rows(p: Any, ids: Any) -> Any:
    """Each token with the one before it, which a loop carries."""

    def step(before: Any, i: Any) -> Any:
        return i, row(p, before) + row(p, i)

    _, e = jax.lax.scan(step, jnp.zeros(len(ids), ids.dtype), ids.T)
    return body(p, jnp.swapaxes(e, 0, 1))


def test_ids_that_a_loop_carries() -> None:
    before = jnp.pad(IDS[:, :-1], ((0, 0), (1, 0)))
    split = lambda p, a, b: body(p, a + b)  # noqa: E731
    explain = lrp.relevance(split, lrp.AttnLRP(), argnums=(1, 2))
    first, second = explain(P, row(P, before), row(P, IDS), target=TARGET)
    wanted = second.sum(-1).at[:, :-1].add(first.sum(-1)[:, 1:])
    close(lrp.relevance(two_rows, lrp.AttnLRP())(P, IDS, target=TARGET), wanted)


def several(p: Any, ids: Any, types: Any) -> Any:
    return body(p, row(p, ids) + p["types"][types])


def test_several_tables() -> None:
    explain = lrp.relevance(several, lrp.AttnLRP(), argnums=(1, 2))
    split = lrp.relevance(lambda p, a, b: body(p, a + b), lrp.AttnLRP(), argnums=(1, 2))
    wanted = split(P, row(P, IDS), P["types"][TYPES], target=TARGET)
    for found, relevance in zip(explain(P, IDS, TYPES, target=TARGET), wanted, strict=True):
        close(found, relevance.sum(-1))
    only = lrp.relevance(several, lrp.AttnLRP())(P, IDS, TYPES, target=TARGET)
    close(only, wanted[0].sum(-1))


def test_one_argument_in_two_tables_and_a_tied_head() -> None:
    def tied(p: Any, e: Any, more: Any) -> Any:
        return jax.nn.silu((e + more) @ p["w"]) @ p["embed"]["table"].T

    whole = lambda p, i: tied(p, row(p, i), P["o"].T[i])  # noqa: E731
    explain = lrp.relevance(tied, lrp.AttnLRP(), argnums=(1, 2))
    wanted = sum(explain(P, row(P, IDS), P["o"].T[IDS], target=TARGET)).sum(-1)
    close(lrp.relevance(whole, lrp.AttnLRP())(P, IDS, target=TARGET), wanted)


def test_tokens_of_characters() -> None:
    characters = jax.random.randint(KEYS[6], (WORDS, 3), 0, WORDS)
    spelled = lambda p, i: body(p, row(p, characters[i]).sum(2))  # noqa: E731
    split = lrp.relevance(lambda p, e: body(p, e.sum(2)), lrp.AttnLRP())
    wanted = split(P, row(P, characters[IDS]), target=TARGET).sum((-1, -2))
    close(lrp.relevance(spelled, lrp.AttnLRP())(P, IDS, target=TARGET), wanted)


def masked(p: Any, ids: Any, e: Any) -> Any:
    keep = ids != 3
    e = jnp.where(keep[..., None], e, 0.0) * keep[..., None]
    scores = jnp.where(keep[:, None], e @ p["w"] @ jnp.swapaxes(e, -1, -2), -1e9)
    last = jnp.argmax(ids, -1)
    h = (jax.nn.softmax(scores) @ e)[jnp.arange(len(ids)), last]
    return h / keep.sum(-1, keepdims=True) @ p["o"]


def test_masks_and_positions_made_of_ids_are_constants() -> None:
    whole = lambda p, i: masked(p, i, row(p, i))  # noqa: E731
    cast = lambda p, i: masked(p, i.astype(float), row(p, i))  # noqa: E731
    split = lambda p, e: masked(p, IDS, e)  # noqa: E731
    wanted = lrp.relevance(split, lrp.AttnLRP())(P, row(P, IDS), target=3).sum(-1)
    for way in (whole, cast):
        found = lrp.relevance(way, lrp.AttnLRP())(P, IDS, target=3)
        close(found, wanted)
        assert (np.asarray(found)[1, 1:3] == 0).all()


def test_explained_values_taken_where_ids_say_it_are_theirs() -> None:
    def picked(ids: Any, e: Any) -> Any:
        return jnp.take_along_axis(e @ P["o"], ids[..., None], -1)[..., 0].sum(1, keepdims=True)

    def multiplied(ids: Any, e: Any) -> Any:
        return (hot(ids) * (e @ P["o"])).sum((1, 2))[:, None]

    split = lrp.relevance(lambda p, e: picked(IDS, e), lrp.AttnLRP())
    wanted = split(P, row(P, IDS), target=0).sum(-1)
    for end in (picked, multiplied):
        whole = lambda p, i, end=end: end(i, row(p, i))  # noqa: E731
        close(lrp.relevance(whole, lrp.AttnLRP())(P, IDS, target=0), wanted)


def whole(p: Any, ids: Any) -> Any:
    return body(p, row(p, ids))


EXPLAIN = lrp.relevance(whole, lrp.AttnLRP())
SPLIT = lrp.relevance(body, lrp.AttnLRP())


def test_jit_vmap_and_grad() -> None:
    wanted = SPLIT(P, row(P, IDS), target=TARGET).sum(-1)
    close(jax.jit(lambda p, i: EXPLAIN(p, i, target=TARGET))(P, IDS), wanted)
    close(jax.vmap(lambda i: EXPLAIN(P, i[None], target=TARGET)[0])(IDS), wanted)
    loss = lambda explain: lambda p: (explain(p)[:, 1] ** 2).sum()  # noqa: E731
    found = jax.grad(loss(lambda p: EXPLAIN(p, IDS, target=TARGET)), allow_int=True)(P)
    split = jax.grad(loss(lambda p: SPLIT(p, row(p, IDS), target=TARGET).sum(-1)), allow_int=True)(
        P
    )
    for name in ("pos", "w", "o"):
        close(found[name], split[name], 1e-9)
    close(found["embed"]["table"], split["embed"]["table"], 1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_other_dtypes(dtype: Any) -> None:
    p = jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, P)
    found = EXPLAIN(p, IDS, target=TARGET)
    assert found.dtype == dtype
    split = SPLIT(p, row(p, IDS), target=TARGET).astype(float).sum(-1)
    close(found.astype(float), split, 1e-5 if dtype == jnp.float32 else 1e-2)


def test_value_and_relevance_plan_and_prepare() -> None:
    output, found = lrp.value_and_relevance(whole, lrp.AttnLRP())(P, IDS, target=TARGET)
    close(output, whole(P, IDS))
    prepared = lrp.prepare(EXPLAIN, P)
    close(prepared(IDS, target=TARGET), found)
    plan = lrp.plan(whole, lrp.AttnLRP())(P, IDS)
    first = plan.layers[0]
    assert (first.path, first.kind, first.output) == ("embed", lrp.Embedding, (2, 5, 4))
    assert "sum of features" in str(plan)


def test_each_and_aux() -> None:
    several = [targets.token(position=-1, token=t) for t in (3, 5)]
    found = EXPLAIN(P, IDS, target=targets.each(several))
    for relevance, one in zip(found, several, strict=True):
        close(relevance, EXPLAIN(P, IDS, target=one))
    with_ids = lrp.relevance(lambda p, i: (whole(p, i), i + 1), lrp.AttnLRP(), has_aux=True)
    relevance, aux = with_ids(P, IDS, target=TARGET)
    close(relevance, found[0])
    assert (aux == IDS + 1).all()


def test_hidden_layers_have_the_features() -> None:
    wanted = SPLIT(P, row(P, IDS), target=TARGET)
    layers = lrp.layer_relevances(whole, lrp.AttnLRP())(P, IDS, target=TARGET)
    close(layers["embed"], wanted)
    below = lrp.layer_relevances(body, lrp.AttnLRP())(P, row(P, IDS), target=TARGET)
    assert layers.keys() == below.keys() | {"embed"}
    for name, relevance in below.items():
        close(layers[name], relevance)


def test_the_ledger_has_the_positions_as_a_bias() -> None:
    ledger = lrp.conservation(whole, lrp.AttnLRP())(P, IDS, target=TARGET)
    close(ledger.received, EXPLAIN(P, IDS, target=TARGET).sum())
    rows = ledger.rows
    assert abs(rows["embed"]["in"] - rows["embed"]["out"]) < 1e-12
    close(rows["embed"]["out"] + rows["pos"]["bias"], rows["pos"]["in"])
    assert abs(ledger.elsewhere) < 1e-9


def test_concepts_add_up() -> None:
    split = lrp.concept_relevance(body, lrp.AttnLRP(), "w", range(FEATURES))
    wanted = split(P, row(P, IDS), target=TARGET).sum(-1)
    through = lrp.concept_relevance(whole, lrp.AttnLRP(), "w", range(FEATURES))
    close(through(P, IDS, target=TARGET), wanted)
    features = lrp.concept_relevance(whole, lrp.AttnLRP(), "embed", range(FEATURES))
    close(features(P, IDS, target=TARGET).sum(0), EXPLAIN(P, IDS, target=TARGET))


def test_parameters() -> None:
    composite = lrp.EpsilonPlusFlat().override((lrp.first(lrp.Dense), lrp.Flat()))
    for chosen in (lrp.AttnLRP(), composite):
        found = lrp.parameter_relevance(whole, chosen)(P, IDS, target=TARGET)
        relevance = lrp.relevance(body, chosen)(P, row(P, IDS), target=TARGET)
        rows = jnp.zeros_like(P["embed"]["table"]).at[IDS].add(relevance)
        close(found["embed"]["table"], rows)
        split = lrp.parameter_relevance(body, chosen)(P, row(P, IDS), target=TARGET)
        for name in ("pos", "w", "o"):
            close(found[name], split[name])


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_matrix(mode: Any) -> None:
    wanted = lrp.relevance_matrix(body, lrp.AttnLRP())(P, row(P, IDS)).sum(-1)
    close(lrp.relevance_matrix(whole, lrp.AttnLRP(), mode=mode)(P, IDS), wanted)


def test_pairs() -> None:
    pooled = lambda p, i: whole(p, i).mean(1)  # noqa: E731
    split = lambda p, e: body(p, e).mean(1)  # noqa: E731
    summed = lambda r: r.sum(-1)  # noqa: E731
    a, b = IDS[:1], IDS[1:]
    wanted = lrp.bilrp(split, lrp.AttnLRP(), reduce=summed)(P, row(P, a), row(P, b))
    close(lrp.bilrp(pooled, lrp.AttnLRP())(P, a, b), wanted)


BASELINES: dict[str, Callable[[Any], Any]] = {
    "gradient": baselines.gradient,
    "input x gradient": baselines.input_x_gradient,
    "integrated gradients": baselines.integrated_gradients,
    "smoothgrad": lambda f: baselines.smoothgrad(f, key=KEYS[7]),
}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_at_the_embedding(name: str) -> None:
    make = BASELINES[name]
    wanted = make(body)(P, row(P, IDS), target=TARGET).sum(-1)
    close(make(whole)(P, IDS, target=TARGET), wanted)
    if name != "smoothgrad":  # whose noise has the shape of what is looked up
        looped = lambda p, i: body(p, by_scan(p, i))  # noqa: E731
        close(make(looped)(P, IDS, target=TARGET), wanted)


def test_baselines_of_several_arguments() -> None:
    explain = baselines.input_x_gradient(several, argnums=(1, 2), has_aux=False)
    split = baselines.input_x_gradient(lambda p, a, b: body(p, a + b), argnums=(1, 2))
    wanted = split(P, row(P, IDS), P["types"][TYPES], target=TARGET)
    for found, relevance in zip(explain(P, IDS, TYPES, target=TARGET), wanted, strict=True):
        close(found, relevance.sum(-1))
    mixed = baselines.gradient(lambda p, i, e: body(p, row(p, i) + e), argnums=(1, 2))
    ids, floats = mixed(P, IDS, P["types"][TYPES], target=TARGET)
    assert ids.shape == IDS.shape
    close(ids, floats.sum(-1))


def score(ids: Any) -> Any:
    return whole(P, ids)[:, -1, 3]


def test_occlusion_puts_another_id_there() -> None:
    found = baselines.occlusion(whole, window=1, fill=3)(P, IDS, target=TARGET)
    for t in range(POSITIONS):
        close(found[:, t], score(IDS) - score(IDS.at[:, t].set(3)))


def test_metrics_of_ids() -> None:
    relevance = EXPLAIN(P, IDS, target=TARGET)
    flip = evaluation.pixel_flipping(whole, steps=POSITIONS, fill=evaluation.fills.constant(3))
    curves = flip(P, IDS, relevance=relevance, target=TARGET)
    best = IDS.at[jnp.arange(2), relevance.argmax(-1)].set(3)
    close(curves.score[:, 0], score(IDS))
    close(curves.score[:, 1], score(best))
    lacks = evaluation.completeness(whole)(P, IDS, relevance=relevance, target=TARGET)
    close(lacks, relevance.sum(-1) - score(IDS))
    masks = jnp.eye(POSITIONS, dtype=bool)[:, None]
    agree = evaluation.faithfulness_correlation(whole, masks=masks, fill=3)
    drops = baselines.occlusion(whole, window=1, fill=3)(P, IDS, target=TARGET)
    wanted = [np.corrcoef(r, d)[0, 1] for r, d in zip(relevance, drops, strict=True)]
    close(agree(P, IDS, relevance=relevance, target=TARGET), wanted, 1e-9)
    with pytest.raises(TypeError, match="token ids"):
        evaluation.infidelity(whole)(P, IDS, relevance=relevance, target=TARGET)
    with pytest.raises(TypeError, match="token ids"):
        evaluation.max_sensitivity(EXPLAIN)(P, IDS, target=TARGET)


def test_a_data_set_of_ids() -> None:
    batches = [IDS, IDS[::-1]]
    explain = lambda ids: EXPLAIN(P, ids, target=TARGET)  # noqa: E731
    found = lrp.explain_dataset(explain, batches, progress=False)
    close(found, jnp.concatenate([explain(IDS), explain(IDS)[::-1]]))


def test_held_embeddings_get_nothing() -> None:
    held = lrp.AttnLRP().override((lrp.Embedding, lrp.Hold()))
    assert (lrp.relevance(whole, held)(P, IDS, target=TARGET) == 0).all()
    types = lrp.AttnLRP().override(("types", lrp.Hold()))
    explain = lrp.relevance(several, types, argnums=(1, 2))
    found, nothing = explain(P, IDS, TYPES, target=TARGET)
    assert (nothing == 0).all()
    assert (found != 0).all()


def bag(p: Any, ids: Any) -> Any:
    return jnp.zeros((len(ids), WORDS)).at[jnp.arange(len(ids))[:, None], ids].add(1.0) @ p["o"].T


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "cast": (lambda p, i: i.astype(float)[..., :4] @ p["w"], "convert_element_type"),
    "bag of words": (bag, "scatter"),
    "pairs": (lambda p, i: body(p, row(p, (i[:, :1] * 3 + i) % 9)), "add"),
    "sorted": (lambda p, i: body(p, row(p, jnp.sort(i))), "sort"),
    "two of them": (lambda p, i: (p["embed"]["table"] @ p["o"])[i, i], "gather"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_ids_that_reach_the_output_in_another_way_are_refused(case: str) -> None:
    f, operation = REFUSED[case]
    with pytest.raises(lrp.UnsupportedOperation, match=operation) as error:
        lrp.plan(f, lrp.AttnLRP())(P, IDS)
    assert "test_tokens.py" in str(error.value)


def test_a_transform_of_ids_is_refused_with_the_way_to_ask() -> None:
    with pytest.raises(TypeError, match="value_and_relevance"):
        lrp.lrp_transform(whole, lrp.AttnLRP())(P, IDS)


def test_ids_that_nothing_looks_up() -> None:
    with pytest.warns(UserWarning, match="no output depends"):
        found = lrp.relevance(lambda p, i: p["pos"] * (i != 3).sum(), lrp.AttnLRP())(P, IDS)
    np.testing.assert_array_equal(found, np.zeros(IDS.shape))
