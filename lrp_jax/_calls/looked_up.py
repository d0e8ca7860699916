"""A call as a function of the vectors that its explained integers look up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import composites, rules
from .._propagation.loop import Taps, key
from .arguments import ArgNums
from .explained import Explained

# Rules of modified gradients that serve no layer: every layer has its own gradient.
PLAIN = composites.Composite([(lambda layer: False, rules.GuidedBackprop())])


@dataclass(frozen=True)
class LookedUp:
    """A call as a function of what its explained integers look up, and of explained floats.

    Attributes:
        values: what the function takes: looked-up vectors and explained floats, by name.
        model: from such values to the output of the call.
        back: from one number for each of the values to numbers for the explained arguments, summed
            over the features of looked-up vectors.
        output: of the call.
        aux: its auxiliary output.
    """

    values: dict[str, Any]
    model: Callable[[dict[str, Any]], Any]
    back: Callable[[dict[str, Any]], Any]
    output: Any
    aux: Any


def holds_integers(arguments: Any) -> bool:
    """Whether any leaf of explained arguments is an array of integers."""
    leaves = [leaf for leaf in jax.tree.leaves(arguments) if hasattr(leaf, "dtype")]
    return any(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in leaves)


class Embedded:
    """Calls of a function, by what their explained integers look up.

    Args:
        f: the function.
        argnums: the explained arguments.
        has_aux: whether it returns `(output, aux)`.
    """

    def __init__(self, f: Callable[..., Any], argnums: ArgNums, has_aux: bool) -> None:
        self._explained = Explained(f, PLAIN, argnums, has_aux)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LookedUp:
        """One call."""
        call, leaves = self._explained.prepare(args, kwargs)
        call.rows.warn_of_unknown(leaves)
        steps = call.frame.layers()
        indices = [call.resolved.indices[s] for s in steps if s.kind == "Embedding"]
        floats = {f"argument:{i}": leaves[i] for i in call.explained if not _is_integer(leaves[i])}

        def looked_up(carriers: list[Any]) -> tuple[Taps, tuple[Any, Any]]:
            merged = call.with_explained(leaves, carriers)
            output, aux, exposed = call.evaluate("C", PLAIN, merged, exposed=frozenset(indices))
            return {key("out", i): exposed[key("out", i)] for i in indices}, (output, aux)

        rows, pull, (output, aux) = jax.vjp(looked_up, call.explained_values(leaves), has_aux=True)

        def model(values: dict[str, Any]) -> Any:
            merged = [values.get(f"argument:{i}", leaf) for i, leaf in enumerate(leaves)]
            rows = {i: values[key("out", i)] for i in indices}
            patches = {key("patch", i): (jnp.ones(r.shape, bool), r) for i, r in rows.items()}
            return call.evaluate("C", PLAIN, merged, patches)[0]

        def back(found: dict[str, Any]) -> Any:
            (summed,) = pull({name: found[name] for name in rows})
            relevances = [
                found.get(f"argument:{i}", r) for i, r in zip(call.explained, summed, strict=True)
            ]
            return self._explained.rebuild_explained(args, relevances)

        return LookedUp({**floats, **rows}, model, back, output, aux)


def _is_integer(leaf: Any) -> bool:
    return bool(np.issubdtype(leaf.dtype, np.integer))
