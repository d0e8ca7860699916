"""ion: graph networks and state space models as pytrees of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .families_equinox import is_number, key
from .guest import Case, Guest, drawn, filled

PACKAGE = "ion-nn"
SENDERS = np.array([0, 1, 2, 3, 4, 0, 2, 4, 1, 3])
RECEIVERS = np.array([1, 2, 3, 4, 0, 2, 4, 1, 3, 0])
GRAPHS = np.array([0, 0, 0, 1, 1])
EDGES = dict(x_edge=(10, 4))
TYPES = dict(edge_type=np.arange(10) % 3)
ROUNDED = 1e-6
"""Gates and norms are computed in float32."""


def case(net: Any, run: Callable[[Any, Any], Any], name: str, *shape: int) -> Case:
    """A tree of parameters, for an input of some shape."""
    leaves, tree = jax.tree.flatten(net)
    own = {f"{i:03d}": leaf for i, leaf in enumerate(leaves) if is_number(leaf)}

    def fill(place: str, leaf: Any) -> Any:
        real = jax.ShapeDtypeStruct(leaf.shape, jnp.float64)
        value = filled(real, name + place)
        return value + 1j * filled(real, place + name) if jnp.iscomplexobj(leaf) else value

    def function(params: Any, x: Any) -> Any:
        full = [params.get(f"{i:03d}", leaf) for i, leaf in enumerate(leaves)]
        return run(jax.tree.unflatten(tree, full), x)

    return Case(function, {place: fill(place, leaf) for place, leaf in own.items()},
                drawn(name, *shape))  # fmt: skip


def convolution(name: str, *sizes: int, given: Any = None, **options: Any) -> Callable[[], Case]:
    """A layer of a graph network, and the sum of its nodes."""

    def build() -> Case:
        import ion

        layer = getattr(ion.gnn, name)(6, 8, *sizes, key=key(), **options)
        beside = {
            k: drawn(name + k, *v) if isinstance(v, tuple) else v for k, v in (given or {}).items()
        }

        def run(net: Any, x: Any) -> Any:
            layer, head = net
            y = layer(x, SENDERS, RECEIVERS, **beside)
            y = y[0] if isinstance(y, tuple) else y
            return head(jax.nn.relu(y).sum(0))[None]

        return case((layer, ion.nn.Linear(8, 3, key=key())), run, name, 5, 6)

    return build


def normalised() -> Case:
    import ion

    linear = ion.nn.Linear
    net = (linear(6, 8, key=key()), ion.gnn.GraphNorm(8), linear(8, 3, key=key()))

    def run(net: Any, x: Any) -> Any:
        inwards, norm, head = net
        return head(jax.nn.relu(norm(inwards(x), GRAPHS, 2)).sum(0))[None]

    return case(net, run, "norm", 5, 6)


def pooled() -> Case:
    import ion

    net = ion.gnn.MultiHeadAttentionPool(6, 8, num_seeds=2, num_heads=2, key=key())
    return case(net, lambda net, x: net(x, GRAPHS, 2).reshape(2, -1), "pool", 5, 6)


def sequence(name: str, *sizes: int, **options: Any) -> Callable[[], Case]:
    """A layer of sequences, and what it makes of the last element."""

    def build() -> Case:
        import ion

        def run(net: Any, x: Any) -> Any:
            layer, head = net
            y = layer(x)
            return head((y[0] if isinstance(y, tuple) else y)[:, -1])

        layer = getattr(ion.nn, name)(6, *sizes, key=key(), **options)
        return case((layer, ion.nn.Linear(6, 3, key=key())), run, name, 2, 5, 6)

    return build


def guest(name: str, build: Callable[[], Case], **more: Any) -> Guest:
    return Guest(f"ion {name}", PACKAGE, build, **more)


FAMILIES: tuple[Guest, ...] = (
    guest("GCN", convolution("GCNConv")),
    guest("GAT", convolution("GATConv", given=EDGES, num_heads=2, edge_dim=4), tolerance=ROUNDED),
    guest("GATv2", convolution("GATv2Conv", given=EDGES, num_heads=2, edge_dim=4)),
    guest("GraphSAGE, largest, normalised",
          convolution("SAGEConv", aggregate="max", normalize=True)),
    guest("GatedGCN", convolution("GatedGCNConv", 4, given=EDGES), tolerance=ROUNDED),
    guest("graph transformer",
          convolution("TransformerConv", given=EDGES, num_heads=2, edge_dim=4, use_beta=True)),
    guest("relational GCN", convolution("RGCNConv", 3, given=TYPES, num_bases=2)),
    guest("heterogeneous graph transformer",
          convolution("HGTConv", 2, 3, given=TYPES | dict(node_type=np.arange(5) % 2),
                      num_heads=2, use_skip=False)),
    guest("GraphNorm", normalised, tolerance=ROUNDED),
    guest("attention pool", pooled),
    guest("S4D", sequence("S4D", 4), loops=True),
    guest("S5", sequence("S5", 4), loops=True),
    guest("GRU", sequence("GRU", 6), loops=True),
    guest("LSTM", sequence("LSTM", 6), loops=True),
    guest("causal window attention",
          sequence("MultiHeadAttention", num_heads=2, causal=True, window=(3, 0))),
)  # fmt: skip
