"""Walks, groups and queries against all walks, one by one, of networks written as Jacobians.

Without biases and with LRP-0 a relu net hands on c_i = sum_j dh_j/dh_i c_j, and R_i = h_i c_i (what
CP-LRP holds constant is constant in the Jacobian, too). So a walk is a product of blocks of
Jacobians, which knows nothing of the library.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lrp_jax as lrp
from lrp_jax.questions import visits

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
EXACT = lrp.CPLRP()  # LRP-0 in layers and sums alike; attention weights are constants


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def draw(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@dataclass(frozen=True)
class Net:
    """A network as stages, from the input to the score: `stages[0]` makes the first layer named.

    `axes` are the axes of nodes, `examples` those of examples (None: there are none) of the input
    and of each layer but the output.
    """

    params: Any
    x: jax.Array
    stages: Sequence[Callable[[Any, jax.Array], jax.Array]]
    layers: Sequence[str]
    axes: Sequence[int]
    examples: Sequence[int | None]

    def apply(self, params: Any, x: jax.Array) -> jax.Array:
        for stage in self.stages:
            x = stage(params, x)
        return x

    def example(self, x: jax.Array, place: int, number: int) -> jax.Array:
        axis = self.examples[place]
        return x if axis is None else jnp.take(x, jnp.array([number]), axis)

    def all_walks(self, number: int) -> np.ndarray:
        """Relevance of every walk of one example for output 0, the input's node first."""
        h = self.example(self.x, 0, number)
        values, jacobians = [], []
        for stage in self.stages:
            values.append(np.asarray(h))
            of_stage = jax.jacobian(lambda v, s=stage: s(self.params, v))(h)
            h = stage(self.params, h)
            jacobians.append(np.asarray(of_stage).reshape(h.size, -1))
        nodes = [v.shape[axis] for v, axis in zip(values, self.axes, strict=True)]
        blocks = []
        for v, axis in zip(values, self.axes, strict=True):
            numbers = np.arange(v.shape[axis])
            wide = [-1 if a == axis % v.ndim else 1 for a in range(v.ndim)]
            blocks.append(np.broadcast_to(numbers.reshape(wide), v.shape).ravel())
        found = np.zeros(nodes)
        for walk in np.ndindex(*nodes):
            c = np.eye(h.size)[0]  # output 0
            for place in reversed(range(len(values))):
                c = (c @ jacobians[place]) * (blocks[place] == walk[place])
            found[walk] = (c * values[0].ravel()).sum()
        return found

    def ask(self, query: Any, *args: Any, **options: Any) -> Any:
        options = {"axis": self.axes, **options}
        return query(self.apply, EXACT, self.layers, *args, **options)(
            self.params, self.x, target=0
        )


EDGES = jnp.asarray([[3, 1, 0, 0], [2, 4, 1, 5], [0, 7, 6, 0], [0, 2, 0, 3.0]]) / 8


def graph_net(*examples: int) -> Net:
    """Two rounds of messages on four nodes, and their sum."""
    params = {"a": draw(2, 3, seed=1), "b": draw(3, 3, seed=2), "c": draw(3, 2, seed=3)}
    batch = 0 if examples else None
    return Net(
        params,
        draw(*examples, 4, 2, seed=0),
        [
            lambda w, x: jax.nn.relu(EDGES @ x @ w["a"]),
            lambda w, h: jax.nn.relu(EDGES @ h @ w["b"]),
            lambda w, h: h.sum(-2) @ w["c"],
        ],
        ["input", "ReLU", "ReLU:1"],
        [-2, -2, -2],
        [batch] * 3,
    )


def transformer() -> Net:
    """Two blocks of attention with a skip connection, a norm, and a gate."""
    names = ["q1", "k1", "v1", "q2", "k2", "v2", "m"]
    params = {name: draw(4, 4, seed=i) / 2 for i, name in enumerate(names)}
    params["head"] = draw(4, 2, seed=9)

    def attention(w: Any, h: jax.Array, number: int) -> jax.Array:
        statistic = jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-6)
        normed = h / jax.lax.stop_gradient(statistic)
        weights = jax.nn.softmax((normed @ w[f"q{number}"]) @ (normed @ w[f"k{number}"]).mT)
        return h + jax.lax.stop_gradient(weights) @ (normed @ w[f"v{number}"])

    return Net(
        params,
        draw(2, 3, 4, seed=20),
        [
            lambda w, x: attention(w, x, 1),
            lambda w, h: attention(w, h, 2),
            lambda w, h: (h + jax.nn.relu(h @ w["m"]))[:, -1] @ w["head"],
        ],
        ["input", "Merge", "Merge:1"],
        [1, 1, 1],
        [0, 0, 0],
    )


def image_net() -> Net:
    """Channels of two convolutions; rows of the image."""
    params = {
        "a": draw(2, 2, 1, 3, seed=31), "b": draw(2, 2, 3, 4, seed=32), "c": draw(4, 2, seed=33)
    }  # fmt: skip

    def conv(kernel: jax.Array, x: jax.Array) -> jax.Array:
        form = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=form)
        return jax.nn.relu(y)

    return Net(
        params,
        draw(2, 4, 3, 1, seed=30),
        [
            lambda w, x: conv(w["a"], x),
            lambda w, h: conv(w["b"], h),
            lambda w, h: h.max((1, 2)) @ w["c"],
        ],
        ["input", "ReLU", "ReLU:1"],
        [1, -1, -1],
        [0, 0, 0],
    )


def recurrent() -> Net:
    """Two layers in time: steps of the input, and steps of what the second layer reads."""
    params = {
        "in1": draw(2, 3, seed=41), "h1": draw(3, 3, seed=42) / 2,
        "in2": draw(3, 3, seed=43), "h2": draw(3, 3, seed=44) / 2, "out": draw(3, 2, seed=45),
    }  # fmt: skip

    def first(w: Any, x: jax.Array) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = jax.nn.relu(x @ w["in1"] + h @ w["h1"])
            return h, h

        return jax.lax.scan(step, jnp.zeros((len(x), 3)), x.swapaxes(0, 1))[1]

    def second(w: Any, hidden: jax.Array, read: Any = None) -> jax.Array:
        def step(h: jax.Array, below: jax.Array) -> tuple[jax.Array, None]:
            p = below @ w["in2"] if read is None else below
            return jax.nn.relu(p + h @ w["h2"]), None

        return jax.lax.scan(step, jnp.zeros((hidden.shape[1], 3)), hidden)[0] @ w["out"]

    class Loops(Net):
        def apply(self, params: Any, x: jax.Array) -> jax.Array:
            return second(params, first(params, x))

    return Loops(
        params,
        draw(2, 4, 2, seed=40),
        [lambda w, x: first(w, x) @ w["in2"], lambda w, p: second(w, p, read=False)],
        ["input", "in2"],
        [1, 0],
        [0, 1],
    )


NETS = {
    "graph": graph_net(),
    "graphs": graph_net(2),
    "transformer": transformer(),
    "image": image_net(),
    "recurrent": recurrent(),
}


@pytest.fixture(scope="module", params=NETS)
def case(request: pytest.FixtureRequest) -> tuple[Net, np.ndarray]:
    """A net, and the relevance of all walks of all examples, (nodes, ..., examples)."""
    net = NETS[request.param]
    axis = net.examples[0]
    count = 1 if axis is None else net.x.shape[axis]
    found = np.stack([net.all_walks(number) for number in range(count)], -1)
    return net, found[..., 0] if axis is None else found


def nodes_of(net: Net, brute: np.ndarray) -> tuple[int, ...]:
    return brute.shape[: len(net.layers)]


def test_every_walk(case: tuple[Net, np.ndarray]) -> None:
    net, brute = case
    walks = list(np.ndindex(*nodes_of(net, brute)))
    found = net.ask(lrp.walk_relevance, walks)
    assert_allclose(found, brute.reshape(len(walks), *brute.shape[len(net.layers) :]), **CLOSE)
    assert np.abs(found).max() > 1e-2
    whole = lrp.relevance(net.apply, EXACT)(net.params, net.x, target=0)
    kept = () if net.examples[0] is None else (net.examples[0],)
    summed = np.asarray(whole).sum(tuple(a for a in range(whole.ndim) if a not in kept))
    assert_allclose(found.sum(0), summed, **CLOSE)
    assert_allclose(net.ask(lrp.walk_relevance, walks[:3], chunk=2), found[:3], **CLOSE)


def test_sets_of_nodes_in_walks_and_the_order_of_layers(case: tuple[Net, np.ndarray]) -> None:
    net, brute = case
    free = [None] * (len(net.layers) - 1)
    found = net.ask(lrp.walk_relevance, [[[0, 2], *free], [1, *free]])
    over = tuple(range(1, len(net.layers)))
    assert_allclose(found, [brute[[0, 2]].sum((0, *over)), brute[1].sum(tuple(range(len(over))))],
                    **CLOSE)  # fmt: skip
    turned = lrp.walk_relevance(
        net.apply, EXACT, net.layers[::-1], [[*free, 1]], axis=net.axes[::-1]
    )
    assert_allclose(turned(net.params, net.x, target=0), found[1:], **CLOSE)


def test_groups_are_sums_over_the_walks_inside(case: tuple[Net, np.ndarray]) -> None:
    net, brute = case
    groups = [[0], [0, 2], [0, 1, 2], []]
    expected = [
        brute[np.ix_(*[group] * len(net.layers))].sum(tuple(range(len(net.layers))))
        for group in groups
    ]
    assert_allclose(net.ask(lrp.group_relevance, groups), expected, **CLOSE)


def test_queries_are_sums_over_the_walks_of_which_they_hold(
    case: tuple[Net, np.ndarray],
) -> None:
    net, brute = case
    a, b, c = visits(0), visits(1, 2), visits(2)
    queries = {
        a: lambda v: 0 in v,
        a & b: lambda v: 0 in v and bool(v & {1, 2}),
        a | ~b: lambda v: 0 in v or not v & {1, 2},
        ~(a & b) & c: lambda v: not (0 in v and bool(v & {1, 2})) and 2 in v,
        a & ~a: lambda v: False,
        a | ~a: lambda v: True,
    }
    found = net.ask(lrp.query_relevance, list(queries))
    walks = list(np.ndindex(*nodes_of(net, brute)))
    for row, holds in zip(found, queries.values(), strict=True):
        expected = sum((brute[walk] for walk in walks if holds(set(walk))), np.zeros(row.shape))
        assert_allclose(row, expected, **CLOSE)


@pytest.mark.parametrize("prove", [True, False])
def test_the_strongest_walks(case: tuple[Net, np.ndarray], prove: bool) -> None:
    """With room for all beginnings they are the strongest for certain."""
    net, brute = case
    found = net.ask(lrp.strongest_walks, 5, width=10**4, prove=prove)
    examples = brute.shape[len(net.layers) :]
    flat = brute.reshape(-1, *examples)
    order = np.argsort(-np.abs(flat), 0)
    best = np.take_along_axis(flat, order[:5], 0)
    nodes = np.stack(np.unravel_index(order[:5], nodes_of(net, brute)), -1)
    assert_allclose(found.relevance, np.moveaxis(best, 0, -1), **CLOSE)
    assert_array_equal(found.nodes, np.moveaxis(nodes, 0, -2))
    assert found.proved.all() == prove
    if prove:
        sixth = np.take_along_axis(np.abs(flat), order[5:6], 0)[0]
        assert_allclose(found.missed, sixth, **CLOSE)


def test_what_may_be_missed_is_never_less_than_what_is(case: tuple[Net, np.ndarray]) -> None:
    net, brute = case
    found = net.ask(lrp.strongest_walks, 2, width=2, chunk=7)
    flat = np.abs(brute).reshape(-1, *brute.shape[len(net.layers) :])
    missing = np.sort(flat, 0)[::-1]
    worst = np.abs(found.relevance).min(-1)
    others = np.where(np.isclose(worst, missing[1]), missing[2], missing[0])
    assert (found.missed >= others - 1e-9).all()


def test_where_a_node_is_a_number_no_more_beginnings_are_kept_than_walks_are_asked_for() -> None:
    params = {name: draw(6, 6, seed=i) for i, name in enumerate("abc")}
    params["d"] = draw(6, 1, seed=4)
    x = draw(2, 6, seed=5)

    def net(w: Any, x: jax.Array) -> jax.Array:
        return jax.nn.relu(jax.nn.relu(x @ w["a"]) @ w["b"]) @ w["c"] @ w["d"]

    layers = ["input", "a", "b", "c"]
    walks = list(itertools.product(range(6), repeat=4))
    every = lrp.walk_relevance(net, EXACT, layers, walks, axis=-1)(params, x)
    found = lrp.strongest_walks(net, EXACT, layers, 8, axis=-1, width=8)(params, x)
    for example in range(2):
        order = np.argsort(-np.abs(every[:, example]))[:8]
        assert_allclose(found.relevance[example], every[order, example], **CLOSE)
        assert_array_equal(found.nodes[example], [walks[i] for i in order])
    assert found.proved.all()


def test_rules_are_those_of_the_layers() -> None:
    """Two graph layers under LRP-epsilon and z+, written out node by node."""
    w = {"a": draw(2, 3, seed=1), "b": draw(3, 3, seed=2)}
    x, start = 1 + jnp.abs(draw(4, 2, seed=0)), draw(4, 3, seed=3)

    def net(w: Any, x: jax.Array) -> jax.Array:
        return EDGES @ jax.nn.relu(EDGES @ x @ w["a"]) @ w["b"]

    def divided(above: Any, below: Any) -> Any:
        return np.where(below == 0, 0, above / np.where(below == 0, 1, below))

    edges, a, positive = np.asarray(EDGES), np.asarray(w["a"]), np.maximum(w["b"], 0)
    h0 = np.asarray(x)
    m0 = edges @ h0
    z = m0 @ a
    h1 = np.maximum(z, 0)
    m1 = edges @ h1

    def through_edges(h: np.ndarray, messages: np.ndarray, relevance: np.ndarray) -> np.ndarray:
        return h * (edges.T @ (relevance * divided(1, messages)))

    def at(node: int, relevance: np.ndarray) -> np.ndarray:
        return relevance * (np.arange(4) == node)[:, None]

    expected = {}
    for top, middle, bottom in np.ndindex(4, 4, 4):
        relevance = m1 * (divided(at(top, start), m1 @ positive) @ positive.T)
        relevance = at(middle, through_edges(h1, m1, relevance))
        relevance = m0 * ((relevance / (z + np.where(z < 0, -0.1, 0.1))) @ a.T)
        relevance = at(bottom, through_edges(h0, m0, relevance))
        expected[top, middle, bottom] = relevance.sum()
    rules = [("b", lrp.ZPlus(stabilizer=0)), ("a", lrp.Epsilon(0.1)), ("*", lrp.Norm(stabilizer=0))]
    ask = lrp.walk_relevance(net, lrp.Composite(rules), ["b", "ReLU", "input"], list(expected))
    found = ask(w, x, target=lambda _: start)
    assert_allclose(found, list(expected.values()), **CLOSE)
    assert np.abs(found).max() > 0.1


def test_it_is_a_jax_function() -> None:
    net = graph_net(2)
    ask = lrp.walk_relevance(net.apply, EXACT, net.layers, [(0, 1, 1)])
    slope = jax.jit(jax.grad(lambda x: ask(net.params, x, target=0).sum()))(net.x)
    step = 1e-6 * jnp.ones_like(net.x)
    change = ask(net.params, net.x + step, target=0) - ask(net.params, net.x - step, target=0)
    assert_allclose(change.sum() / 2, (slope * step).sum(), rtol=1e-4)
    strongest = jax.jit(lrp.strongest_walks(net.apply, EXACT, net.layers, 3))
    assert strongest(net.params, net.x).nodes.shape == (2, 3, 3)


def test_token_ids_are_nodes_too() -> None:
    w = {"table": draw(7, 3, seed=0), "a": draw(3, 3, seed=1), "b": draw(3, 2, seed=2)}
    ids = jnp.array([[1, 4, 6]])

    def net(w: Any, ids: jax.Array) -> jax.Array:
        return jax.nn.relu(w["table"][ids] @ w["a"]).sum(1) @ w["b"]

    found = lrp.walk_relevance(net, EXACT, ["input", "ReLU"], [(0, 0), (1, 0), (2, 2)],
                               axis=[1, 1])(w, ids, target=1)  # fmt: skip
    whole = lrp.relevance(net, EXACT)(w, ids, target=1)
    assert_allclose(found[:, 0], [whole[0, 0], 0, whole[0, 2]], **CLOSE)


def test_mistakes_are_named() -> None:
    net = graph_net()

    def ask(layers: Any, walks: Any = ((0, 0),), composite: Any = EXACT, **options: Any) -> Any:
        explain = lrp.walk_relevance(net.apply, composite, layers, walks, **options)
        return explain(net.params, net.x)

    for wrong, message in (
        (lambda: ask(["input", "ReLU"], [(0,)]), r"a node for each of 2 layers, got \[1\]"),
        (lambda: ask(["input", "ReLU"], []), "a node for each"),
        (lambda: ask(["input", "ReLU"], [(0, 4)]), r"nodes \[4\] are out of range: there are 4"),
        (lambda: ask(["input", "input"]), "named twice"),
        (lambda: ask(["ReLU", "ReLU"]), "named twice"),
        (lambda: ask("ReLU"), "a list of layers"),
        (lambda: ask(["input", "ReLU"], axis=2), r"axis=2 is out of range for input"),
        (lambda: ask(["input", "ReLU"], axis=[0]), "one axis or one each"),
        (lambda: ask(["nowhere", "ReLU"]), "no layer matches"),
        (lambda: ask(["input", "ReLU"], chunk=0), "chunk=0"),
        (lambda: ask(["input", "ReLU"], composite=lrp.composites.deconvnet()), "not linear"),
        (lambda: lrp.strongest_walks(net.apply, EXACT, ["input"], 9, width=8), "at most width"),
        (lambda: lrp.query_relevance(net.apply, EXACT, ["input"], []), "a list of statements"),
        (lambda: net.ask(lrp.query_relevance, [visits(4)]), r"nodes \[4\] are out of range"),
        (visits, "at least one node"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
    assert str(~visits(3) | visits(1, 0)) == "(not (3)) or (0 or 1)"


def test_a_published_graph_network() -> None:
    """All 81 walks of ethanol's atoms through four rounds of messages; groups are their sums."""
    expaloma = pytest.importorskip("expaloma")
    features = pytest.importorskip("expaloma.featurize")
    chemistry = pytest.importorskip("rdkit.Chem")
    pytest.importorskip("rdkit.RDLogger").DisableLog("rdApp.*")
    graph = features.from_rdkit_mol(chemistry.MolFromSmiles("CCO"))
    ends = jnp.asarray(graph.senders), jnp.asarray(graph.receivers)
    with jax.enable_x64(False):
        model = expaloma.load_eqx(expaloma.bundled_eqx_path())
    model = jax.tree.map(lambda a: a.astype(jnp.float64), model)

    def apply(model: Any, x: jax.Array, *ends: jax.Array) -> jax.Array:
        hidden = model.gnn(x, *ends, zero_edges=False)
        return (hidden @ model.w_readout.T)[:, 0]

    def sage(number: int) -> Callable[[Any, jax.Array], jax.Array]:
        return lambda model, h: jax.nn.relu(model.gnn.sages[number](h, *ends, zero_edges=False))

    x = jnp.asarray(graph.h0, jnp.float64)
    first = sage(0)(model, jnp.tanh(x @ model.gnn.w_f_in.T + model.gnn.b_f_in))
    stages = [sage(1), sage(2), sage(3), lambda model, h: (h @ model.w_readout.T)[:, 0]]
    brute = Net(model, first, stages, [], [-2] * 4, [None] * 4).all_walks(0)
    layers = ["ReLU", "ReLU:1", "ReLU:2", "ReLU:3"]
    weights = jnp.eye(3)[0]
    walks = list(np.ndindex(3, 3, 3, 3))
    found = lrp.walk_relevance(apply, EXACT, layers, walks)(model, x, *ends, target=weights)
    assert_allclose(found, brute.ravel(), **CLOSE)
    groups = lrp.group_relevance(apply, EXACT, layers, [[0, 1], [0, 1, 2]])
    expected = [brute[:2, :2, :2, :2].sum(), brute.sum()]
    assert_allclose(groups(model, x, *ends, target=weights), expected, **CLOSE)
