"""The ledger: where every bit of relevance went, layer by layer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.arguments import ArgNums
from .._calls.call import Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._layers.arithmetic import relevance_of
from .._propagation.loop import Taps, key
from .._tables import Shown, Table, brief, counted, shares_of_largest
from ..composites import Composite
from .sites import Site, pull_taps, sites, zeros_like

COLUMNS = ("in", "out", "bias", "stabiliser", "dropped", "rule")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["table", "start", "received", "overflow"],
    meta_fields=["layers", "kinds", "rules"],
)
@dataclass(frozen=True, repr=False)
class Ledger(Shown):
    """What relevance each layer received, passed on and lost; prints as a table.

    In print, what is less than a millionth of the largest number is 0; `table` has every digit.

    For each layer `in = out + bias + stabiliser + dropped + rule`, where `in` arrives at its output
    and `out` leaves it for its inputs. What the layers together lost, and what constants outside of
    layers took (`elsewhere`), is the difference between `start` and `received`.

    Attributes:
        table: an array (layers, 6) of the columns in, out, bias, stabiliser, dropped, rule.
        start: the relevance that started the backward pass.
        received: the relevance of the explained inputs.
        overflow: for each layer, whether its own value is NaN or infinite and its inputs are not.
        layers: paths of the layers.
        kinds: their kinds.
        rules: their rules.
    """

    table: jax.Array
    start: jax.Array
    received: jax.Array
    overflow: jax.Array
    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    rules: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))

    @property
    def rows(self) -> dict[str, dict[str, float]]:
        """`{layer: {column: value}}`."""
        table = np.asarray(self.table)
        return {
            name: dict(zip(COLUMNS, map(float, row), strict=True))
            for name, row in zip(self.layers, table, strict=True)
        }

    @property
    def elsewhere(self) -> jax.Array:
        """Relevance that constants outside of layers took: class tokens, masks, padding."""
        return self.start - self.received - self.table[..., 2:].sum((-2, -1))

    @property
    def first_nonfinite(self) -> str | None:
        """The layer that made the first NaN or Inf; None where there is none.

        That is the first layer from the input on whose value is not finite, else the first from
        the output on that sends out relevance that is not.
        """
        for name, overflowed in zip(self.layers, np.asarray(self.overflow), strict=True):
            if overflowed:
                return name
        finite = np.isfinite(np.asarray(self.table))
        for name, (_, *rest) in reversed(list(zip(self.layers, finite, strict=True))):
            if not all(rest):
                return name
        return None

    def assert_conserved(self, tol: float = 1e-3) -> None:
        """Raise unless the inputs received what the output gave.

        Args:
            tol: the difference allowed, as a fraction of the start.

        Raises:
            AssertionError: naming the layers that lost most, or that made NaN or Inf.
        """
        bad = self.first_nonfinite
        if bad is not None or not np.isfinite(float(self.received)):
            raise AssertionError(
                f"relevance is not finite: the first layer to make it so is {bad}.\n{self}"
            )
        start, received = float(self.start), float(self.received)
        if abs(start - received) <= tol * max(abs(start), float(np.finfo(np.float32).tiny)):
            return
        lost = np.abs(np.asarray(self.table)[:, 2:])
        worst = np.argsort(-lost.sum(1))[:3]
        named = ", ".join(
            f"{self.layers[i]} ({COLUMNS[2 + int(lost[i].argmax())]} {lost[i].max():.3g})"
            for i in worst
        )
        raise AssertionError(
            f"{start:.6g} started and {received:.6g} arrived (tolerance {tol:g} of the start); the "
            f"layers that took most are {named}.\n{self}"
        )

    def _title(self) -> str:
        return (
            f"Relevance of {counted(len(self.layers), 'layer')}: {float(self.start):.6g} started, "
            f"{float(self.received):.6g} arrived"
        )

    def _table(self) -> Table:
        table = np.asarray(self.table)
        least = 1e-6 * np.abs(table).max(initial=0, where=np.isfinite(table))  # rounding
        rows = tuple(
            (name, kind, brief(rule), *("0" if abs(v) <= least else f"{v:.4g}" for v in row))
            for name, kind, rule, row in zip(
                self.layers, self.kinds, self.rules, table, strict=True
            )
        )
        elsewhere = 0.0 if abs(self.elsewhere) <= least else float(self.elsewhere)
        total = (
            f"start {float(self.start):.6g}, received {float(self.received):.6g}, "
            f"constants elsewhere {elsewhere:.4g} (sums over all examples)"
        )
        return Table(
            ("layer", "kind", "rule", *COLUMNS[:-1], "by the rule"),
            rows,
            numbers=frozenset(range(3, 3 + len(COLUMNS))),
            notes=(total,),
            bars=tuple((*[0.0] * 5, *row[2:]) for row in shares_of_largest(table.tolist())),
        )


@no_target
def conservation(
    apply_fn: Callable[..., Any], composite: Any, argnums: ArgNums = 1, *, has_aux: bool = False
) -> Callable[..., Ledger]:
    """A function from a call of `apply_fn` to the ledger of its explanation.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        argnums: the explained positional arguments.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to a `Ledger` (a pytree).

    Raises:
        ValueError: for modified gradients, which conserve nothing.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda p, x: x @ p["w"] + p["b"]
        >>> p = {"w": jnp.ones((2, 1)), "b": jnp.ones(1)}
        >>> ledger = lrp.conservation(f, lrp.Epsilon())(p, jnp.array([[1.0, 2.0]]))
        >>> round(float(ledger.rows["w"]["bias"]), 3)
        1.0
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)
    if explained.composite.gradient:
        raise ValueError("modified gradients carry no relevance, so there is nothing to conserve.")

    def ledger(*args: Any, target: Any = None, **kwargs: Any) -> Ledger:
        call, leaves = explained.prepare(args, kwargs)
        layers = call.resolved.plan.layers

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Any:
            found_sites = sites(call, begin.form)
            taps: Taps = {}
            for site in found_sites:
                taps[key("out", site.index)] = site.probe(site.step.outputs[0])
                taps[key("bias", site.index)] = jnp.zeros((*site.loops, 3), _accumulator(site))
                for i, var in enumerate(site.step.inputs):
                    taps[key("in", site.index, i)] = site.probe(var)
            everything = frozenset(site.index for site in found_sites)
            output, values, pullback = pull_taps(
                call, begin.form, composite, leaves, taps, everything
            )
            seed = begin.seed(output, target)
            explained_relevance, found = pullback(seed, zeros_like(values))
            started = jax.tree.map(lambda s, y: relevance_of(s, y, begin.form).sum(), seed, output)
            rows = [_row(site, found, values) for site in found_sites]
            table = jnp.stack(rows) if rows else jnp.zeros((0, 6))
            received = sum(jnp.sum(r.astype(table.dtype)) for r in explained_relevance)
            overflow = jnp.array([_overflows(site, values) for site in found_sites], bool)
            return table, sum(jax.tree.leaves(started)), received, overflow

        table, start, received, overflow = explained.run(call, "ledger", evaluate, leaves, target)
        order = [layers[site.index] for site in sites(call, "C")]
        paths, kinds = tuple(x.path for x in order), tuple(x.kind.label for x in order)
        rules = tuple(x.rule for x in order)
        return Ledger(table, start, received, overflow, paths, kinds, rules)

    return ledger


def _accumulator(site: Site) -> Any:
    dtype = site.step.outputs[0].aval.dtype
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def _overflows(site: Site, values: Taps) -> jax.Array:
    def finite(place: str, operand: int) -> jax.Array:
        value = values[key(place, site.index, operand)]
        return jnp.all(jnp.isfinite(value) | jnp.isneginf(value))  # -inf masks logits

    inputs = [finite("in", i) for i in range(len(site.step.inputs))]
    return ~finite("out", 0) & jnp.all(jnp.stack(inputs))


def _row(site: Site, found: Taps, values: Taps) -> jax.Array:
    name = key("out", site.index)
    arrived = relevance_of(found[name], values[name], site.output_form).sum()
    sent = sum(
        relevance_of(
            found[key("in", site.index, i)], values[key("in", site.index, i)], site.input_form
        ).sum()
        for i in range(len(site.step.inputs))
    )
    report = found[key("bias", site.index)]
    bias, stabiliser, dropped = report.reshape(-1, 3).sum(0)
    rest = arrived - sent - bias - stabiliser - dropped
    if site.step.rest_is_bias and not site.held:
        bias, rest = rest, jnp.zeros_like(rest)
    return jnp.stack([arrived, sent, bias, stabiliser, dropped, rest])
