"""Several targets for one call, which has one forward pass for all of them."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Target = Any  # see `lrp_jax.targets.starts`

EACH = (
    "targets.each is for relevance, value_and_relevance and the queries of lrp_jax; here call the "
    "function once for each target"
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Each:
    """Several targets."""

    targets: tuple[Any, ...]

    def over(self, function: Callable[[Any], Any], mapped: Callable[[Any, Any], Any]) -> Any:
        """A function of one of the targets for all of them, results stacked.

        What does not depend on the target, such as the forward pass, is computed once.

        Args:
            function: of one target.
            mapped: how a function of one row is computed of many, from both.
        """
        if len(set(map(_kind, self.targets))) == 1 and _kind(self.targets[0]) is not None:
            return mapped(function, jax.tree.map(lambda *each: jnp.stack(each), *self.targets))
        numbers = jnp.arange(len(self.targets))
        return mapped(lambda number: function(One(self.targets, number)), numbers)


def _kind(target: Any) -> Any:
    """What two targets have in common that differ in numbers alone; None where there are none."""
    leaves, tree = jax.tree.flatten(target)
    if not leaves or any(map(callable, leaves)):
        return None
    return tree, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


@dataclasses.dataclass(frozen=True, eq=False)
class One:
    """One of several targets, by its (traced) number."""

    targets: tuple[Any, ...]
    number: Array

    def chosen(self, starts: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *each: jnp.stack(each)[self.number], *starts)


def each(targets: Sequence[Target]) -> Each:
    """Several targets for one call: every result has one leading axis for them.

    There is one forward pass, and their backward passes are computed together. What `relevance`
    and the queries return (the output that `value_and_relevance` returns beside it too) is stacked:
    `jax.tree.map(lambda a: a[0], result)` is that of the first target.

    Args:
      targets: anything that `target=` takes, several of it; kinds may differ.

    Returns:
      Something for `target=` of `relevance`, `value_and_relevance` and the queries of this package;
      baselines and metrics take one target at a time.

    Raises:
      TypeError: for one target in the place of several.
      ValueError: there is none, or one of them is `each` again.

    >>> import lrp_jax as lrp
    >>> from lrp_jax.targets import contrast
    >>> explain = lrp.relevance(lambda w, x: x @ w, lrp.Zero())
    >>> w, x = jnp.array([[1.0, -1.0], [0.0, 2.0]]), jnp.array([[2.0, 1.5]])
    >>> print(explain(w, x, target=each([0, 1, contrast(0, 1)]))[:, 0])
    [[ 2.  0.]
     [-2.  3.]
     [ 4. -3.]]
    """
    if not isinstance(targets, Iterable):
        raise TypeError(f"each takes a list of targets, got {targets!r}")
    several = tuple(targets)
    if not several or any(isinstance(one, Each) for one in several):
        raise ValueError(f"each takes at least one target, and none made by each: {targets!r}")
    return Each(several)


def is_each(target: Target) -> bool:
    """Whether a target was made by `each`, or is one of those.

    Args:
      target: see `lrp_jax.targets.starts`.

    Returns:
      Whether it is.

    >>> is_each(each([0, 1])), is_each([0, 1])
    (True, False)
    """
    return isinstance(target, Each | One)


def leading(target: Target) -> tuple[int, ...]:
    """The axes that a target puts before every result.

    Args:
      target: see `lrp_jax.targets.starts`.

    Returns:
      `()`, or `(n,)` for the n targets of `each`.

    >>> leading(each([0, 1])), leading(0)
    ((2,), ())
    """
    return (len(target.targets),) if isinstance(target, Each) else ()
