"""Identities of every equation: its result takes a detour, or it stands behind a border.

The second part of the table of `identities.py`: reductions, moves of numbers that come back, loops
and their turns, and what wraps a whole range of equations (`BORDERS`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from lrp_jax._analysis import compat

from .identities import IDENTITIES, Site, identity

# -- reductions -----------------------------------------------------------------------------------


@identity("a sum = a dot with ones", "reduce_sum", exact=True)
def _(site: Site, x: Any) -> Any:
    axes = tuple(site.params["axes"])
    if not axes:
        return None
    ones = jnp.ones([x.shape[i] for i in axes], x.dtype)
    return jnp.tensordot(x, ones, (axes, tuple(range(len(axes)))))


@identity("a sum = a sum of parts", "reduce_sum", exact=True)
def _(site: Site, x: Any) -> Any:
    axes = tuple(site.params["axes"])
    if not axes or x.shape[axes[0]] < 2:
        return None
    parts = (x[(slice(None),) * axes[0] + (s,)].sum(axes) for s in (slice(1), slice(1, None)))
    return next(parts) + next(parts)


@identity("a sum over axes = sums in turn", "reduce_sum", exact=True)
def _(site: Site, x: Any) -> Any:
    axes = sorted(site.params["axes"])
    return x.sum(axes[-1]).sum(tuple(axes[:-1])) if len(axes) > 1 else None


@identity("a sum = a mean times n", "reduce_sum", exact=True)
def _(site: Site, x: Any) -> Any:
    axes = tuple(site.params["axes"])
    return x.mean(axes) * int(np.prod([x.shape[i] for i in axes])) if axes else None


@identity("a sum = an einsum", "reduce_sum")
def _(site: Site, x: Any) -> Any:
    letters = "abcdefgh"[: x.ndim]
    out = "".join(c for i, c in enumerate(letters) if i not in site.params["axes"])
    return jnp.einsum(f"{letters}->{out}", x)


@identity("a sum = a sum over the last axis", "reduce_sum")
def _(site: Site, x: Any) -> Any:
    axes = tuple(site.params["axes"])
    if not axes:
        return None
    moved = jnp.moveaxis(x, axes, tuple(range(x.ndim - len(axes), x.ndim)))
    return moved.reshape(*moved.shape[: x.ndim - len(axes)], -1).sum(-1)


@identity("the largest = minus the least of -x", "reduce_max")
def _(site: Site, x: Any) -> Any:
    return -((-x).min(tuple(site.params["axes"])))


@identity("the largest = the largest of parts", "reduce_max")
def _(site: Site, x: Any) -> Any:
    axes = tuple(site.params["axes"])
    if not axes or x.shape[axes[0]] < 2:
        return None
    parts = (x[(slice(None),) * axes[0] + (s,)].max(axes) for s in (slice(1), slice(1, None)))
    return jnp.maximum(next(parts), next(parts))


@identity("a running sum = a triangle", "cumsum", exact=True)
def _(site: Site, x: Any) -> Any:
    axis, n = site.params["axis"], x.shape[site.params["axis"]]
    ones = np.tril(np.ones((n, n)))
    return jnp.moveaxis(
        jnp.moveaxis(x, axis, -1) @ (ones if site.params["reverse"] else ones.T), -1, axis
    )


# -- moves ----------------------------------------------------------------------------------------


@identity("beside each other = zeros around and added", "concatenate", exact=True)
def _(site: Site, *parts: Any) -> Any:
    axis, total, before, y = site.params["dimension"], site.results[0].shape, 0, 0
    for part in parts:
        widths = [(0, 0)] * part.ndim
        widths[axis] = (before, total[axis] - before - part.shape[axis])
        before += part.shape[axis]
        y = y + jnp.pad(part, widths)
    return y


@identity("beside each other = set in turn", "concatenate")
def _(site: Site, *parts: Any) -> Any:
    axis, before = site.params["dimension"], 0
    y = jnp.zeros(site.results[0].shape, parts[0].dtype)
    for part in parts:
        y = lax.dynamic_update_slice_in_dim(y, part, before, axis)
        before += part.shape[axis]
    return y


@identity("broadcast = times ones", "broadcast_in_dim")
def _(site: Site, x: Any, *_: Any) -> Any:
    shape, axes = site.params["shape"], site.params["broadcast_dimensions"]
    narrow = [x.shape[axes.index(i)] if i in axes else 1 for i in range(len(shape))]
    return x.reshape(narrow) * np.ones(shape)


@identity("broadcast = repeated", "broadcast_in_dim")
def _(site: Site, x: Any, *_: Any) -> Any:
    shape, axes = site.params["shape"], site.params["broadcast_dimensions"]
    narrow = [x.shape[axes.index(i)] if i in axes else 1 for i in range(len(shape))]
    return jnp.tile(x.reshape(narrow), [n // m for n, m in zip(shape, narrow, strict=True)])


@identity("a transpose = rows gathered", "transpose")
def _(site: Site, x: Any) -> Any:
    axes = tuple(site.params["permutation"])
    if len(axes) < 2:
        return None
    index = np.transpose(np.arange(x.size).reshape(x.shape), axes)
    return x.reshape(-1)[index]


def detour(name: str, exact: bool = False) -> Callable[[Callable[..., Any]], None]:
    """The result of any equation goes somewhere and comes back."""

    def keep(there_and_back: Callable[..., Any]) -> None:
        def rewrite(site: Site, *operands: Any) -> Any:
            if site.ndim < 2 or len(site.results) != 1 or site.results[0].dtype != np.float64:
                return None
            return there_and_back(site.as_it_is(*operands)[0])

        identity(name, exact=exact)(rewrite)

    return keep


# Between a contraction and its bias, a move that is more than another shape cuts the layer.
detour("y = -(-y)")(lambda y: jnp.negative(jnp.negative(y)))
detour("y = 2 y / 2")(lambda y: 2 * y / 2)
detour("y = y 1")(lambda y: y * 1.0)
detour("y = 4 (y / 4)")(lambda y: (y / 4) * 4)
detour("y transposed twice")(lambda y: jnp.swapaxes(jnp.swapaxes(y, 0, -1), 0, -1))
detour("y flat and back")(lambda y: y.reshape(-1).reshape(y.shape))
detour("y with one more axis and back")(lambda y: y[..., None][..., 0])
detour("y reversed twice", exact=True)(lambda y: y[..., ::-1][..., ::-1])
detour("y padded and cut", exact=True)(
    lambda y: jnp.pad(y, [(0, 1)] * y.ndim)[(slice(-1),) * y.ndim]
)
detour("y doubled and cut", exact=True)(lambda y: jnp.concatenate([y, y], -1)[..., : y.shape[-1]])
detour("y beside zeros and cut", exact=True)(
    lambda y: jnp.concatenate([jnp.zeros_like(y), y], -1)[..., y.shape[-1] :]
)
detour("y split and joined", exact=True)(lambda y: jnp.concatenate([y[..., :1], y[..., 1:]], -1))
detour("y stacked and chosen", exact=True)(lambda y: jnp.stack([y, y])[1])
detour("y gathered in its own order", exact=True)(
    lambda y: jnp.take(y, np.arange(y.shape[-1]), axis=-1)
)
detour("y gathered in another order and back", exact=True)(
    lambda y: y[..., np.arange(y.shape[-1])[::-1]][..., np.arange(y.shape[-1])[::-1]]
)
detour("y where true", exact=True)(lambda y: jnp.where(np.ones(y.shape, bool), y, 0))
detour("y repeated, the mean", exact=True)(
    lambda y: jnp.stack([y, y]).mean(0),
)
detour("y repeated, one of two", exact=True)(lambda y: jnp.repeat(y, 2, -1)[..., ::2])
detour("y behind a barrier")(lax.optimization_barrier)
detour("y behind a barrier of two")(lambda y: lax.optimization_barrier((y, jnp.ones(2)))[0])
detour("y on its device")(jax.device_put)
detour("y under a name")(lambda y: checkpoint_name(y, "y"))
detour("y in float64 again")(lambda y: y.astype(jnp.float64))
detour("y times the unit matrix", exact=True)(lambda y: y @ np.eye(y.shape[-1]))
detour("y = y / 2 + y / 2", exact=True)(lambda y: y / 2 + y / 2)
detour("y = 3 y - 2 y", exact=True)(lambda y: 3 * y - 2 * y)
detour("y set into zeros", exact=True)(lambda y: jnp.zeros_like(y).at[...].set(y))


# -- bodies ---------------------------------------------------------------------------------------


@identity("a scan = its turns", "scan")
def _(site: Site, *operands: Any) -> Any:
    eqn, p = site.eqn, site.params
    constants, carries = compat.scan_arity(eqn)
    body = compat.closed(p["jaxpr"])
    if p["length"] > 8:
        return None
    run = lambda *v: jax.core.eval_jaxpr(compat.open_jaxpr(body), body.consts, *v)  # noqa: E731
    held, carry = operands[:constants], list(operands[constants : constants + carries])
    rows: list[Any] = [None] * p["length"]
    for t in reversed(range(p["length"])) if p["reverse"] else range(p["length"]):
        made = run(*held, *carry, *(xs[t] for xs in operands[constants + carries :]))
        carry, rows[t] = made[:carries], made[carries:]
    stacked = [jnp.stack(column) for column in zip(*rows, strict=True)]
    return [*carry, *stacked]


@identity("a branch = the one that is taken", "cond")
def _(site: Site, which: Any, *operands: Any) -> Any:
    body = compat.closed(site.params["branches"][int(site.values[0])])
    return jax.core.eval_jaxpr(compat.open_jaxpr(body), body.consts, *operands)


@identity("a checkpoint = its body", "checkpoint", "remat2", "remat")
def _(site: Site, *operands: Any) -> Any:
    body = compat.closed(site.params["jaxpr"])
    return jax.core.eval_jaxpr(compat.open_jaxpr(body), body.consts, *operands)


# -- borders around a range of equations ----------------------------------------------------------

Body = Callable[..., list[Any]]
BORDERS: dict[str, Callable[[Body], Body]] = {}


def border(name: str) -> Callable[[Callable[[Body], Body]], None]:
    def keep(wrap: Callable[[Body], Body]) -> None:
        assert name not in IDENTITIES
        BORDERS[name] = wrap

    return keep


border("in a jit")(lambda body: lambda *values: jax.jit(body)(*values))
border("in a checkpoint")(lambda body: lambda *values: jax.checkpoint(body)(*values))
border("twice checkpointed")(
    lambda body: lambda *values: jax.checkpoint(jax.checkpoint(body))(*values)
)


@border("in a scan of one turn")
def _(body: Body) -> Body:
    def scanned(*values: Any) -> list[Any]:
        rows = [v[None] for v in values]
        made = lax.scan(lambda c, row: (c, body(*row)), 0, rows, length=1)[1]
        return [y[0] for y in made]

    return scanned


@border("in a scan of one turn that closes over everything")
def _(body: Body) -> Body:
    def scanned(*values: Any) -> list[Any]:
        made = lax.scan(lambda c, _: (c, body(*values)), 0, None, length=1)[1]
        return [y[0] for y in made]

    return scanned


@border("in a loop of one turn")
def _(body: Body) -> Body:
    def looped(*values: Any) -> list[Any]:
        shapes = jax.eval_shape(body, *values)
        start = [jnp.zeros(s.shape, s.dtype) for s in shapes]
        return lax.fori_loop(0, 1, lambda i, _: body(*values), start)

    return looped


@border("in a branch that is taken")
def _(body: Body) -> Body:
    def branched(*values: Any) -> list[Any]:
        which = jnp.asarray(True)
        other = lambda *v: [jnp.zeros_like(y) for y in body(*v)]  # noqa: E731
        return lax.cond(which, body, other, *values)

    return branched


@border("in a vmap of one")
def _(body: Body) -> Body:
    return lambda *values: [y[0] for y in jax.vmap(body)(*(v[None] for v in values))]


@border("in a map of one")
def _(body: Body) -> Body:
    def mapped(*values: Any) -> list[Any]:
        return [y[0] for y in lax.map(lambda row: body(*row), [v[None] for v in values])]

    return mapped


@border("computed twice")
def _(body: Body) -> Body:
    """Every result by a computation of its own."""

    def again(*values: Any) -> list[Any]:
        count = len(jax.eval_shape(body, *values))
        return [body(*values)[i] for i in range(count)]

    return again
