"""Model parameter randomisation: an explanation must change when the model is no longer the same.

The parameters are destroyed layer by layer, from the output down, and each time the explanation
is compared with that of the intact model. One that stays alike shows the input, not the model.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .._tables import Shown, Table
from ..targets import scoring
from .correlations import key_or_default, spearman


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Randomisation(Shown):
    """How alike explanations stay while parameters are randomised.

    Attributes:
      similarity: `(layers, batch)`, to the explanation of the intact model.
      layers: what had been randomised last at each step, from the output down.
    """

    similarity: Array
    layers: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def _table(self) -> Table:
        means = np.asarray(self.similarity).reshape(len(self.layers), -1).mean(1)
        rows = tuple((name, f"{v:.4f}") for name, v in zip(self.layers, means, strict=True))
        return Table(("randomised last", "similarity"), rows, frozenset({1}))


def parameter_randomisation(
    explain: Callable[..., Any],
    params_argnum: int = 0,
    *,
    layers: Sequence[str] | None = None,
    cascading: bool = True,
    randomise: Callable[[Array, Array], Array] | None = None,
    similarity: Callable[[Array, Array], Array] | None = None,
) -> Callable[..., Randomisation]:
    """Explanations of ever more randomised models, compared with that of the model (MPRT).

    Args:
      explain: a function `(*args, target=...) -> R` (an array), as `relevance` makes.
      params_argnum: the argument that holds the parameters, any pytree.
      layers: globs of parameter paths (`"params/Dense_0/*"`), in the order of destruction. `None`
        takes all layers (parameters that share a path but for its last part), the last to be used
        first.
      cascading: whether layers stay destroyed; otherwise one at a time.
      randomise: `(key, parameter) -> parameter`. By default entries are shuffled, which keeps their
        distribution (and variances positive).
      similarity: a function of two arrays `(batch, elements)`; by default the rank correlation.

    Returns:
      A function `(*args, target=None, key=None) -> Randomisation`.

    Raises:
      ValueError: a glob that matches nothing.

    Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.

    >>> explain = lambda params, x, target=None: x * params["head"]["w"]
    >>> test = parameter_randomisation(explain)
    >>> test({"head": {"w": jnp.arange(4.0)}}, jnp.ones((2, 4))).layers
    ('head',)
    """
    explain = scoring.explaining(explain, "parameter_randomisation")
    alike = spearman if similarity is None else similarity
    destroy = _shuffled if randomise is None else randomise

    @jax.jit
    def run(args: tuple[Any, ...], target: Any) -> Array:
        relevance = explain(*args, target=target)
        return relevance.reshape(len(relevance), -1)

    compare = jax.jit(alike)

    def evaluate(*args: Any, target: Any = None, key: Array | None = None) -> Randomisation:
        params, target = scoring.pick(args, params_argnum), scoring.as_argument(target)
        groups = _groups(params, layers, lambda: _use_order(explain, args, params_argnum, target))
        intact, tree = jax.tree.flatten(params)
        current, rows = list(intact), []
        for members in groups.values():
            current = current if cascading else list(intact)
            for n in members:
                current[n] = destroy(jax.random.fold_in(key_or_default(key), n), intact[n])
            changed = scoring.replace(args, params_argnum, jax.tree.unflatten(tree, current))
            rows.append(compare(run(args, target), run(changed, target)))
        return Randomisation(jnp.stack(rows), tuple(groups))

    return evaluate


def _shuffled(key: Array, parameter: Array) -> Array:
    return jax.random.permutation(key, parameter.reshape(-1)).reshape(parameter.shape)


def _groups(
    params: Any, layers: Sequence[str] | None, order: Callable[[], list[int]]
) -> dict[str, list[int]]:
    """The parameters destroyed at each step, as numbers of leaves."""
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    groups: dict[str, list[int]] = {}
    if layers is None:
        for n in reversed(order()):
            groups.setdefault(paths[n].rpartition("/")[0] or paths[n], []).append(n)
        return groups
    for pattern in layers:
        groups[pattern] = [n for n, p in enumerate(paths) if fnmatch.fnmatchcase(p, pattern)]
        if not groups[pattern]:
            raise ValueError(f"{pattern!r} matches none of the parameters {paths}")
    return groups


def _use_order(
    explain: Callable[..., Any], args: tuple[Any, ...], params_argnum: int, target: Any
) -> list[int]:
    """Floating point parameters in the order of their first use."""
    leaves, tree = jax.tree.flatten(args[params_argnum])
    floating = [n for n, a in enumerate(leaves) if jnp.issubdtype(jnp.result_type(a), jnp.floating)]

    def call(*used: Array) -> Any:
        values = list(leaves)
        for n, value in zip(floating, used, strict=True):
            values[n] = value
        return explain(
            *scoring.replace(args, params_argnum, jax.tree.unflatten(tree, values)),
            target=target,
        )

    jaxpr = jax.make_jaxpr(call)(*(leaves[n] for n in floating)).jaxpr
    return [floating[i] for i in _first_uses(jaxpr)]


def _first_uses(jaxpr: Any) -> list[int]:
    """Positions of a jaxpr's inputs in the order of their first use, inner calls included."""
    where = {v: i for i, v in enumerate(jaxpr.invars)}
    seen: dict[int, None] = {}
    for eqn in jaxpr.eqns:
        for body in _bodies(eqn):
            # Where a body's inputs line up with the equation's, its own order counts.
            if len(body.invars) == len(eqn.invars):
                for inner in _first_uses(body):
                    atom = eqn.invars[inner]
                    if _is_variable(atom) and atom in where:
                        seen.setdefault(where[atom])
        for atom in eqn.invars:
            if _is_variable(atom) and atom in where:
                seen.setdefault(where[atom])
    return list(seen)


def _bodies(eqn: Any) -> list[Any]:
    found = []
    for value in eqn.params.values():
        body = getattr(value, "jaxpr", value)
        if hasattr(body, "eqns") and hasattr(body, "invars"):
            found.append(body)
    return found


def _is_variable(atom: Any) -> bool:
    return not hasattr(atom, "val")  # literals carry their value, and are not hashable
