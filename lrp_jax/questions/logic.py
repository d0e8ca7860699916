"""Relevance of logical statements about what a walk visits: and, or, not.

Source: Schnake et al. 2025, "Towards symbolic XAI: explanation through human understandable logical
relationships between features".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.arguments import ArgNums
from .._calls.hints import no_target
from .walks import flows

Atom = tuple[int, ...]


@dataclass(frozen=True)
class Query:
    """A statement about walks, made by `visits` and joined by `&`, `|` and `~`.

    Attributes:
        operation: "visits", "and", "or" or "not".
        parts: the nodes, or the statements that are joined.
    """

    operation: str
    parts: tuple[Any, ...]

    def __and__(self, other: "Query") -> "Query":
        return Query("and", (self, other))

    def __or__(self, other: "Query") -> "Query":
        return Query("or", (self, other))

    def __invert__(self) -> "Query":
        return Query("not", (self,))

    def __bool__(self) -> bool:
        raise TypeError(
            "a statement about walks is neither true nor false: join statements by &, | and ~ in "
            "the place of and, or and not, of which Python would keep one side."
        )

    def atoms(self) -> Iterable[Atom]:
        """The sets of nodes that it speaks of."""
        if self.operation == "visits":
            return [self.parts]
        return chain.from_iterable(part.atoms() for part in self.parts)

    def holds(self, visited: Mapping[Atom, bool]) -> bool:
        """Whether it is true of a walk, given which of its sets this visits."""
        if self.operation == "visits":
            return visited[self.parts]
        found = [part.holds(visited) for part in self.parts]
        return {"and": all, "or": any, "not": lambda one: not one[0]}[self.operation](found)

    def __str__(self) -> str:
        if self.operation == "visits":
            return " or ".join(map(str, self.parts))
        if self.operation == "not":
            return f"not ({self.parts[0]})"
        return f" {self.operation} ".join(f"({part})" for part in self.parts)


def visits(*nodes: int) -> Query:
    """The statement that a walk visits at least one of these nodes, at any of its layers.

    Args:
        nodes: their numbers.

    Example:
        >>> from lrp_jax.questions import visits
        >>> print(visits(0) & ~visits(2, 3))
        (0) and (not (2 or 3))
    """
    if not nodes:
        raise ValueError("visits needs at least one node.")
    return Query("visits", tuple(sorted({int(node) for node in nodes})))


@no_target
def query_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Sequence[Any],
    queries: Sequence[Query],
    argnums: ArgNums = 1,
    *,
    axis: int | Sequence[int] = -2,
    chunk: int | None = None,
    has_aux: bool = False,
) -> Callable[..., jax.Array]:
    """A function from a call of `apply_fn` to the relevance of all walks of which statements hold.

        R(q) = sum over walks w with q(w) of R(w)

    The walks that avoid a set of nodes are those that stay inside the other nodes, so R(q) is a sum
    of `group_relevance` with signs (inclusion and exclusion): R(a and b) = R - R(avoids a) -
    R(avoids b) + R(avoids both). Groups that no query needs are left out.

    Args:
        apply_fn, composite, layers, argnums, axis, chunk, has_aux: as `walk_relevance`.
        queries: statements, such as `visits(0) & ~visits(2, 3)`. One of m different sets of nodes
            needs at most 2^m groups.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to an array
        (queries, examples), or (queries,).

    Raises:
        ValueError: for anything but a list of statements, for a query of more than 10 sets of
            nodes, and as `walk_relevance`.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> from lrp_jax.questions import visits
        >>> f = lambda w, x: (edges @ (edges @ x @ w["a"]) @ w["b"]).sum(0)
        >>> edges = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])  # 0 - 1 - 2
        >>> w, x = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}, jnp.array([[1.0], [2.0], [4.0]])
        >>> queries = [visits(0) & visits(1), visits(0) & ~visits(1)]
        >>> print(lrp.query_relevance(f, lrp.Zero(), ["input", "a"], queries)(w, x))
        [7. 2.]

    Source: Schnake et al. 2025.
    """
    asked = [] if isinstance(queries, Query) else list(queries)
    if not asked or not all(isinstance(query, Query) for query in asked):
        raise ValueError(
            "query_relevance needs a list of statements, such as [visits(0) & ~visits(1, 2)], got "
            f"{queries!r}."
        )
    signs = [_signs(query) for query in asked]
    avoided = list(dict.fromkeys(chain.from_iterable(signs)))
    weights = np.array([[sign.get(nodes, 0.0) for nodes in avoided] for sign in signs])
    spoken_of = {node for query in asked for atom in query.atoms() for node in atom}

    def masks(sizes: Sequence[int]) -> list[np.ndarray]:
        wrong = [node for node in spoken_of if not 0 <= node < min(sizes)]
        if wrong:
            raise ValueError(f"nodes {wrong} are out of range: there are {min(sizes)} of them.")
        return [
            np.array([[node not in gone for node in range(size)] for gone in avoided], float)
            for size in sizes
        ]

    groups = flows(apply_fn, composite, layers, masks, argnums, axis, chunk, has_aux)

    def relevances(*args: Any, target: Any = None, **kwargs: Any) -> jax.Array:
        found = groups(*args, target=target, **kwargs)
        return jnp.tensordot(jnp.asarray(weights, found.dtype), found, 1)

    return relevances


def _signs(query: Query) -> dict[frozenset[int], float]:
    """The sets of nodes to avoid, and the sign with which the walks that avoid them count.

    With G(Y) the walks that avoid all sets of Y (and maybe others), those that avoid just Z are
    sum over Y that contain Z of (-1)^(|Y| - |Z|) G(Y).
    """
    atoms = list(dict.fromkeys(query.atoms()))
    if len(atoms) > 10:
        raise ValueError(f"a query of {len(atoms)} sets of nodes needs 2^{len(atoms)} groups.")
    every = [frozenset(y) for n in range(len(atoms) + 1) for y in combinations(atoms, n)]
    signs: dict[frozenset[int], float] = {}
    for exact in every:
        if query.holds({atom: atom not in exact for atom in atoms}):
            for more in (y for y in every if exact <= y):
                nodes = frozenset(chain.from_iterable(more))
                signs[nodes] = signs.get(nodes, 0.0) + (-1.0) ** (len(more) - len(exact))
    everything: frozenset[int] = frozenset()
    return {nodes: sign for nodes, sign in signs.items() if sign} or {everything: 0.0}
