"""Random numbers that an explained function draws: it is then one function for each key."""

from collections.abc import Sequence
from typing import Any

import jax

from .._analysis import compat
from .._analysis.compat import is_literal
from .._analysis.inside import equations_in, held_in
from .._analysis.trace import Traced

DRAWN = (
    "the network draws random numbers ({}, as dropout in training mode does): what is explained "
    "is the network of this one draw. Apply it as it predicts (train=False, deterministic=True, "
    "model.eval(), eqx.nn.inference_mode); for expectations over keys see "
    "lrp_jax.questions.ensemble_relevance(..., params_argnum=<the argument that holds keys>)."
)

_DRAWS = compat.primitives("random_bits threefry2x32 rng_bit_generator rng_uniform")
_COMPARISONS = compat.primitives("lt le gt ge eq ne")


def drawn(traced: Traced) -> tuple[str, ...]:
    """What a plan says of a function whose explained output depends on drawn numbers.

    Numbers of a key that the code writes, such as random features, are constants like any other;
    masks are not: they are what training puts into a network.
    """
    if not any(eqn.primitive in _DRAWS for eqn in equations_in(traced.jaxpr)):
        return ()
    jaxpr = compat.open_jaxpr(traced.jaxpr)
    outputs = jaxpr.outvars[: traced.outputs]
    live = compat.without_unused(compat.with_equations(jaxpr, jaxpr.eqns, outputs))
    place, _ = _draw(live, [True] * len(jaxpr.invars))
    return () if place is None else (DRAWN.format(place),)


def holds_keys(argument: Any) -> bool:
    """Whether an argument holds random keys, of the new kind or the old."""

    def is_key(leaf: Any) -> bool:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            return False
        old = dtype == jax.numpy.uint32 and leaf.shape[-1:] in ((2,), (4,))
        return old or bool(jax.numpy.issubdtype(dtype, jax.dtypes.prng_key))

    return any(map(is_key, jax.tree.leaves(argument)))


def _draw(jaxpr: Any, given: Sequence[bool]) -> tuple[str | None, bool]:
    """The line of a draw that matters, and whether any number is drawn; what an input that is not
    `given` holds is known from the code."""
    jaxpr = compat.open_jaxpr(jaxpr)
    known = {v for v, flag in zip(jaxpr.invars, given, strict=True) if flag} | {*jaxpr.constvars}
    random: dict[Any, str] = {}
    for eqn in jaxpr.eqns:
        flags = [not is_literal(a) and a in known for a in eqn.invars]
        line = next((random[a] for a in eqn.invars if not is_literal(a) and a in random), None)
        if eqn.primitive in _DRAWS:
            line = compat.source_line(eqn)
        if line is not None and (
            eqn.primitive in _COMPARISONS or (eqn.primitive in _DRAWS and any(flags))
        ):
            return line, True
        for body in held_in(eqn):
            inputs = len(compat.open_jaxpr(body).invars)
            into = flags[len(flags) - inputs :] if len(flags) >= inputs else [any(flags)] * inputs
            found, is_drawn = _draw(body, into)
            here = found or compat.source_line(eqn)  # bodies may have lost their lines
            if found is not None:
                return here, True
            line = here if is_drawn else line
        if line is not None:
            random.update(dict.fromkeys(eqn.outvars, line))
        if any(flags):
            known.update(eqn.outvars)
    return None, bool(random)
