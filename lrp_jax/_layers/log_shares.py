"""Softmaxes of logarithms: softmax(log a) is a / sum a, which has no exponential."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .._analysis import primitives as prim
from .._analysis.compat import Var
from .._analysis.exponentials import Exponentials
from .._analysis.factors import own_index
from .softmax_forms import exponential_of
from .step import Found
from .weighted_mean import exponential_softmax

Read = Callable[[Var], Any]
_CHOICES = (prim.MUL, prim.SELECT)


def log_share(softmax: Found, out: Var, exponentials: Exponentials) -> Callable[[Read], Any] | None:
    """How a softmax of logarithms is computed as a share; None of any other.

    Args:
        softmax: a softmax that is recognised as it stands.
        out: what it makes.
        exponentials: of its graph.
    """
    graph, logits = exponentials.graph, softmax.root
    eqns = graph.between(out, [logits])[0]
    total = next((e for e in eqns if e.primitive is prim.REDUCE_SUM), None)
    if total is None or total.invars[0].aval.shape != logits.aval.shape:
        return None
    power = exponential_of(logits, own_index(logits), exponentials.monomials)
    power = power or exponential_softmax(logits, exponentials)
    if power is None or any(e.primitive in _CHOICES for e in eqns if graph.is_live(e)):
        return None
    order = range(len(logits.aval.shape))

    def way(read: Read) -> Any:
        value = jnp.broadcast_to(power(read, order), logits.aval.shape)
        return value / jnp.sum(value, total.params["axes"], keepdims=True)

    return way
