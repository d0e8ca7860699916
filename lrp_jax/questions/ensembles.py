"""Uncertainty: relevance over the members of an ensemble, dropout masks, posterior samples.

Source: Bley et al. 2025, "Explaining predictive uncertainty by exposing second-order effects"
(CovLRP); Bykov et al. 2021, "Explaining Bayesian neural networks" (percentiles).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.arguments import ArgNums
from .._calls.draws import holds_keys
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._tables import Shown, Table, arrays, counted
from .._warnings import warn
from ..targets import scoring
from ..targets.examples import reading_of_call, settled
from ..transform import explaining


@partial(jax.tree_util.register_dataclass, data_fields=["members", "outputs"], meta_fields=[])
@dataclass(frozen=True, repr=False)
class Ensemble(Shown):
    """Relevance by each member of an ensemble.

    Attributes:
        members: relevance, the members in front.
        outputs: what the members say, likewise.
    """

    members: jax.Array
    outputs: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The mean over members."""
        return self.members.mean(0)

    @property
    def std(self) -> jax.Array:
        """The standard deviation over members."""
        return self.members.std(0)

    def percentile(self, q: float) -> jax.Array:
        """A percentile over members.

        Args:
            q: from 0 to 100. Low ones of positive relevance are what all members agree on.
        """
        given: Any = q
        if not isinstance(given, jax.core.Tracer) and not np.all(np.abs(np.asarray(q) - 50) <= 50):
            raise ValueError(f"a percentile is from 0 to 100, got {q!r}.")
        return jnp.percentile(self.members, q, axis=0)

    @property
    def agreement(self) -> jax.Array:
        """The share of members whose relevance has the sign of the mean."""
        return (jnp.sign(self.members) == jnp.sign(self.mean)).mean(0)

    @property
    def covariance(self) -> jax.Array:
        """S_ij = Cov(R_i, R_j) over members, of every example's features, flattened.

        Where the rules conserve relevance, sum_ij S_ij is the variance of the explained output.

        Returns:
            An array (examples, features, features).
        """
        return jnp.einsum("mbi,mbj->bij", self._centred, self._centred) / len(self.members)

    @property
    def of_variance(self) -> jax.Array:
        """What every feature gives to the variance of the output: sum_j S_ij, in linear time."""
        centred = self._centred
        total = centred.sum(-1, keepdims=True)
        return (centred * total).mean(0).reshape(self.members.shape[1:])

    def _table(self) -> Table:
        named = {"mean": self.mean, "std": self.std, "agreement": self.agreement}
        return arrays({**named, "outputs": self.outputs})

    def _title(self) -> str:
        return f"Relevance by {counted(len(self.members), 'member')}"

    @property
    def _centred(self) -> jax.Array:
        rows = self.members - self.mean
        return rows.reshape(*rows.shape[:2], -1)


@no_target
def ensemble_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    argnums: ArgNums = 1,
    *,
    params_argnum: int = 0,
    chunk: int | None = None,
) -> Callable[..., Ensemble]:
    """A function to the relevance by every member of an ensemble, from one compiled program.

    Args:
        apply_fn: the function to explain, with the examples in front of its output.
        composite: a composite, or one rule for every layer with weights.
        argnums: the explained argument, one array with the examples in front.
        params_argnum: the argument whose arrays have the members in front: parameters of an
            ensemble, samples of a posterior, keys of dropout.
        chunk: how many members at a time, to bound memory (default: all).

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to an `Ensemble`. Without a
        target all members explain the class that their mean output has the largest, or of an
        output (examples,) the number of each example.

    Raises:
        ValueError: for arrays of parameters that have no axis of members in front.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> from lrp_jax.questions import ensemble_relevance
        >>> w = jnp.array([[[1.0], [1.0]], [[3.0], [1.0]]])  # two members
        >>> explain = ensemble_relevance(lambda w, x: x @ w, lrp.Zero())
        >>> found = explain(w, jnp.array([[1.0, 2.0]]))
        >>> print(found.mean, found.of_variance)
        [[2. 2.]] [[1. 0.]]
    """
    if not isinstance(argnums, int):
        raise TypeError(f"one array is explained by an ensemble, not the arguments {argnums!r}.")

    if chunk is not None:
        scoring.require_positive("chunk", chunk)
    explanations = {
        draws: explaining(Explained(apply_fn, composite, argnums, False, draws))
        for draws in (False, True)
    }

    def explain(*args: Any, target: Any = None, **kwargs: Any) -> Ensemble:
        _require_members(args, params_argnum)
        if params_argnum % len(args) == argnums % len(args):
            raise ValueError(
                f"argument {params_argnum} is explained; the one whose arrays have the members in "
                "front, params_argnum, is another."
            )
        single = explanations[holds_keys(args[params_argnum])]

        def over_members(function: Callable[..., Any], **more: Any) -> Any:
            def of(params: Any) -> Any:
                given = (*args[:params_argnum], params, *args[params_argnum + 1 :])
                return function(*given, **kwargs, **more)

            if chunk is None:
                return jax.vmap(of)(args[params_argnum])
            return jax.lax.map(of, args[params_argnum], batch_size=chunk)

        if target is None:
            first = jax.tree.map(lambda a: a[0], args[params_argnum])
            one = (*args[:params_argnum], first, *args[params_argnum + 1 :])
            mean = over_members(apply_fn).mean(0)
            how = reading_of_call(partial(apply_fn, **kwargs), one, argnums, mean)
            target, note = settled(mean, None, how)
            if note:
                warn(note)
            target = mean.argmax(-1) if target is None else target
        outputs, relevance = over_members(single, target=target)
        return Ensemble(relevance, outputs)

    return explain


def _require_members(args: tuple[Any, ...], number: int) -> None:
    """Refuse parameters whose arrays have no axis of members in front."""
    if not 0 <= number < len(args):
        raise ValueError(f"params_argnum={number} is out of range: {len(args)} arguments.")
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(args[number])]
    if len({shape[:1] for shape in shapes}) != 1 or not shapes[0]:
        raise ValueError(
            f"argument {number} has the members in front of every array, stacked as by "
            "jax.tree.map(lambda *arrays: jnp.stack(arrays), *members); got the shapes "
            f"{', '.join(map(str, shapes[:8]))}{', ...' if len(shapes) > 8 else ''}."
        )
