"""Networks of graphs and of molecules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .guest import Case, Guest, drawn, filled

SENDERS = np.array([0, 1, 2, 3, 4, 0, 2, 3])
RECEIVERS = np.array([1, 2, 3, 4, 0, 2, 0, 1])
NODES, EDGES = 5, 8


def key() -> Any:
    return jax.random.PRNGKey(0)


def graph(nodes: Any, edges: Any = None, globals_: Any = None) -> Any:
    import jraph

    return jraph.GraphsTuple(
        nodes, edges, jnp.asarray(RECEIVERS), jnp.asarray(SENDERS), globals_, jnp.array([NODES]),
        jnp.array([EDGES]),
    )  # fmt: skip


def dense(params: Any, name: str, x: Any) -> Any:
    return x @ params[name]["w"] + params[name]["b"]


def weights(name: str, **shapes: tuple[int, int]) -> Any:
    tree = {
        k: {
            "w": jax.ShapeDtypeStruct(s, jnp.float64),
            "b": jax.ShapeDtypeStruct(s[1:], jnp.float64),
        }
        for k, s in shapes.items()
    }
    return filled(tree, name)


def graph_convolution(normalised: bool) -> Callable[[], Case]:
    def build() -> Case:
        import jraph

        def function(params: Any, x: Any) -> Any:
            g = graph(x)
            for name, act in (("one", jax.nn.relu), ("two", lambda v: v)):
                made = jraph.GraphConvolution(
                    lambda n, name=name: dense(params, name, n), add_self_edges=True,
                    symmetric_normalization=normalised,
                )  # fmt: skip
                g = made(g)
                g = g._replace(nodes=act(g.nodes))
            return g.nodes

        params = weights("gcn", one=(4, 6), two=(6, 3))
        return Case(function, params, drawn("gcn", NODES, 4))

    return build


def graph_attention() -> Case:
    import jraph

    def function(params: Any, x: Any) -> Any:
        def logits(sent: Any, received: Any, edges: Any) -> Any:
            both = jnp.concatenate([sent, received], -1)
            return jax.nn.leaky_relu(dense(params, "logits", both))

        made = jraph.GAT(lambda n: dense(params, "query", n), logits, None)
        return dense(params, "head", jax.nn.elu(made(graph(x)).nodes))

    params = weights("gat", query=(4, 6), logits=(12, 1), head=(6, 3))
    return Case(function, params, drawn("gat", NODES, 4))


def graph_network(reduce: str) -> Callable[[], Case]:
    def build() -> Case:
        import jraph

        def function(params: Any, x: Any) -> Any:
            @jraph.concatenated_args
            def edges(v: Any) -> Any:
                return jax.nn.relu(dense(params, "edge", v))

            @jraph.concatenated_args
            def nodes(v: Any) -> Any:
                return jax.nn.relu(dense(params, "node", v))

            @jraph.concatenated_args
            def whole(v: Any) -> Any:
                return dense(params, "global", v)

            made = jraph.GraphNetwork(
                edges, nodes, whole, aggregate_edges_for_nodes_fn=getattr(jraph, reduce)
            )
            return made(graph(x, params["edges"], params["globals"])).globals

        params = weights(
            "gn", edge=(2 + 4 + 4 + 2, 6), node=(4 + 6 + 6 + 2, 5), **{"global": (5 + 6 + 2, 3)}
        )
        params["edges"] = drawn("edges", EDGES, 2)
        params["globals"] = drawn("globals", 1, 2)
        return Case(function, params, drawn("gn", NODES, 4))

    return build


def interaction_network() -> Case:
    import jraph

    def function(params: Any, x: Any) -> Any:
        made = jraph.InteractionNetwork(
            jraph.concatenated_args(lambda v: jax.nn.silu(dense(params, "edge", v))),
            jraph.concatenated_args(lambda v: dense(params, "node", v)),
        )
        return made(graph(x, params["edges"])).nodes

    params = weights("in", edge=(2 + 4 + 4, 6), node=(4 + 6, 3)) | dict(edges=drawn("e", EDGES, 2))
    return Case(function, params, drawn("in", NODES, 4))


def deep_sets() -> Case:
    import jraph

    def function(params: Any, x: Any) -> Any:
        made = jraph.DeepSets(
            lambda n, g: jax.nn.gelu(dense(params, "node", n)),
            lambda n: dense(params, "global", n),
        )
        return made(graph(x, None, params["globals"])).globals

    params = weights("ds", node=(4, 6), **{"global": (6, 3)}) | dict(globals=drawn("g", 1, 2))
    return Case(function, params, drawn("ds", NODES, 4))


def jraphx(model: str, **options: Any) -> Callable[[], Case]:
    def build() -> Case:
        import jraphx.nn.models as models
        from flax import nnx

        net = getattr(models, model)(4, 6, 2, 3, rngs=nnx.Rngs(0), **options)
        net.eval()
        edges = jnp.stack([jnp.asarray(SENDERS), jnp.asarray(RECEIVERS)])
        shape, params, rest = nnx.split(net, nnx.Param, ...)
        rest = jax.tree.map(lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v, rest)

        def function(params: Any, x: Any) -> Any:
            return nnx.merge(shape, params, rest)(x, edges)

        return Case(function, filled(params, model), drawn(model, NODES, 4))

    return build


def behler_parrinello() -> Case:
    from flax import nnx
    from jax_md import energy, space

    displacement, _ = space.free()
    model = energy.behler_parrinello(
        displacement, key=key(), mlp_sizes=(6, 6), per_particle=True,
        sym_kwargs=dict(cutoff_distance=3.0),
    )  # fmt: skip
    return particles(nnx, model, "behler")


def energy_graph_network() -> Case:
    from flax import nnx
    from jax_md import energy, space

    displacement, _ = space.free()
    model = energy.graph_network(displacement, 2.5, key=key(), n_recurrences=1, mlp_sizes=(6, 6))
    return particles(nnx, model, "energy")


def particles(nnx: Any, model: Any, name: str) -> Case:
    if isinstance(model, tuple):
        model = model[-1]
    shape, params, rest = nnx.split(model, nnx.Param, ...)

    def function(params: Any, x: Any) -> Any:
        return jnp.atleast_1d(nnx.merge(shape, params, rest)(x))

    positions = jnp.asarray(np.indices((2, 2, 1)).reshape(3, -1).T.astype(float))
    return Case(function, filled(params, name), positions + 0.2 * drawn(name, 4, 3))


def equivariant() -> Case:
    """Tensor products with spherical harmonics, a gate and a linear map, as in e3nn's tutorial."""
    import e3nn_jax as e3nn
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, features: Any, vectors: Any) -> Any:
            x = e3nn.IrrepsArray("4x0e", features)
            for irreps in ("4x0e + 4x0e + 2x1o", "3x0e"):
                harmonics = e3nn.spherical_harmonics("0e + 1o", vectors, True)
                messages = e3nn.tensor_product(x[SENDERS], harmonics)
                x = e3nn.scatter_sum(messages, dst=jnp.asarray(RECEIVERS), output_size=NODES)
                x = e3nn.flax.Linear(irreps)(x)
                if "1o" in irreps:
                    x = e3nn.gate(x, even_act=jax.nn.silu)
            return x.array

    vectors = drawn("vectors", EDGES, 3)
    net = Net()
    params = jax.eval_shape(net.init, key(), drawn("e3", NODES, 4), vectors)
    return Case(lambda p, x: net.apply(p, x, vectors), filled(params, "e3"), drawn("e3", NODES, 4))


FAMILIES: tuple[Guest, ...] = (
    Guest("jraph GCN", "jraph", graph_convolution(True)),
    Guest("jraph GCN without norm", "jraph", graph_convolution(False)),
    Guest("jraph GAT", "jraph", graph_attention),
    Guest("jraph GraphNetwork", "jraph", graph_network("segment_sum")),
    Guest("jraph GraphNetwork with means", "jraph", graph_network("segment_mean")),
    Guest("jraph GraphNetwork with maxima", "jraph", graph_network("segment_max")),
    Guest("jraph InteractionNetwork", "jraph", interaction_network),
    Guest("jraph DeepSets", "jraph", deep_sets),
    Guest("JraphX GCN", "jraphx", jraphx("GCN")),
    Guest("JraphX GraphSAGE", "jraphx", jraphx("GraphSAGE")),
    Guest("JraphX GIN", "jraphx", jraphx("GIN")),
    Guest("JraphX GAT", "jraphx", jraphx("GAT", heads=2, concat=False)),
    Guest("JraphX GATv2", "jraphx", jraphx("GAT", heads=2, concat=False, v2=True)),
    Guest("jax-md Behler-Parrinello", "jax-md", behler_parrinello),
    Guest("jax-md graph network", "jax-md", energy_graph_network),
    Guest("e3nn tensor field network", "e3nn-jax", equivariant),
)
