"""Matches: which layers an entry of a composite speaks of.

A match is a layer kind (`Dense`, `Conv`, ...), a path glob, `first(...)`, `last(...)`,
`depth(low, high)`, `call(glob)`, a predicate on the layer, or these combined with `&`, `|` and `~`.
"""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload


class Match:
    """The base of all matches: combine them with `&`, `|`, `~`."""

    def __and__(self, other: "MatchLike") -> "Match":
        return Both(self, match(other))

    def __or__(self, other: "MatchLike") -> "Match":
        return Either(self, match(other))

    def __rand__(self, other: "MatchLike") -> "Match":
        return Both(match(other), self)

    def __ror__(self, other: "MatchLike") -> "Match":
        return Either(match(other), self)

    def __invert__(self) -> "Match":
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError(
            "a match is neither true nor false: combine matches with &, | and ~ in the place of "
            "and, or and not, of which Python would keep one side."
        )

    def matches(self, layer: Any, layers: Any) -> bool:
        """Whether the match speaks of `layer`, one of `layers`."""
        raise NotImplementedError


MatchLike: TypeAlias = Match | str | Callable[[Any], bool]
"""What an entry of a composite may say: a match, a path glob, or a predicate on a `Layer`."""


@dataclass(frozen=True)
class Kind(Match):
    """A kind of layer: a set of basic kinds, printed by its name."""

    label: str
    basic: frozenset[str]

    def matches(self, layer: Any, layers: Any) -> bool:
        return layer.kind <= self

    def __le__(self, other: "Kind") -> bool:
        return self.basic <= other.basic

    @overload
    def __or__(self, other: "Kind") -> "Kind": ...

    @overload
    def __or__(self, other: MatchLike) -> Match: ...

    def __or__(self, other: MatchLike) -> Match:
        if isinstance(other, Kind):
            return Kind(f"{self.label} | {other.label}", self.basic | other.basic)
        return super().__or__(other)

    def __repr__(self) -> str:
        return " | ".join(f"lrp.{name}" for name in self.label.split(" | "))


def _kind(label: str, *parts: Kind) -> Kind:
    own = frozenset({label})
    return Kind(label, own.union(*(part.basic for part in parts)))


Dense: Kind = _kind("Dense")
"""A `dot_general` of an explained value with weights, over some axis: dense layers, einsums."""
ConvTranspose: Kind = _kind("ConvTranspose")
"""A convolution with dilated input."""
Conv: Kind = _kind("Conv", ConvTranspose)
"""A convolution with weights, of any rank, grouped, dilated or transposed."""
Linear: Kind = _kind("Linear", Dense, Conv)
"""Every layer with weights."""
AvgPool: Kind = _kind("AvgPool")
"""Average pooling: local windows, or a mean over positions."""
Merge: Kind = _kind("Merge")
"""A sum of explained values: a residual add, a sum or mean over an axis, a cumulative sum; weighted
by numbers that are no parameters, a resize, a filter bank."""
MaxPool: Kind = _kind("MaxPool")
"""Max pooling: the winner takes all."""
ReLU: Kind = _kind("ReLU")
"""The rectifier, however it is written."""
Activation: Kind = _kind("Activation", ReLU)
"""An elementwise function of one explained value."""
BatchNorm: Kind = _kind("BatchNorm")
"""A stand-alone scale and shift with constants: a batch norm that no contraction could take in."""
Bias: Kind = _kind("Bias")
"""A stand-alone addition of constants: positional terms."""
Normalization: Kind = _kind("Normalization")
"""A value divided by a statistic of itself: layer, RMS, group, instance and L2 norm."""
Softmax: Kind = _kind("Softmax")
"""`exp(u)` over its own sum."""
LogSumExp: Kind = _kind("LogSumExp")
"""The logarithm of a sum of `exp(u)`: a soft maximum."""
Attention: Kind = _kind("Attention")
"""A mean of values weighted by a softmax, as a matrix product: what the heads of attention make."""
MatMul: Kind = _kind("MatMul", Attention)
"""A contraction of two explained values: attention, and its scores."""
Product: Kind = _kind("Product")
"""An elementwise product or quotient of two explained values: gates."""
Bilinear: Kind = _kind("Bilinear", MatMul, Product)
"""A product of two explained values."""
Embedding: Kind = _kind("Embedding")
"""Rows of a table, looked up by explained integers: the embedding of token ids."""
Call: Kind = _kind("Call")
"""A called function as one layer, which an entry of the composite names (see `call`)."""

KINDS: dict[str, Kind] = {
    kind.label: kind
    for kind in (
        Dense, ConvTranspose, Conv, Linear, AvgPool, Merge, MaxPool, ReLU, Activation, BatchNorm,
        Bias, Normalization, Softmax, LogSumExp, Attention, MatMul, Product, Bilinear, Embedding,
        Call,
    )
}  # fmt: skip

Anything: Kind = Kind("Any", frozenset[str]().union(*(kind.basic for kind in KINDS.values())))
"""Every kind of layer."""


@dataclass(frozen=True)
class Both(Match):
    left: Match
    right: Match

    def matches(self, layer: Any, layers: Any) -> bool:
        return self.left.matches(layer, layers) and self.right.matches(layer, layers)

    def __repr__(self) -> str:
        return f"{_inner(self.left)} & {_inner(self.right)}"


@dataclass(frozen=True)
class Either(Match):
    left: Match
    right: Match

    def matches(self, layer: Any, layers: Any) -> bool:
        return self.left.matches(layer, layers) or self.right.matches(layer, layers)

    def __repr__(self) -> str:
        return f"{_inner(self.left)} | {_inner(self.right)}"


@dataclass(frozen=True)
class Not(Match):
    inner: Match

    def matches(self, layer: Any, layers: Any) -> bool:
        return not self.inner.matches(layer, layers)

    def __repr__(self) -> str:
        return f"~{_inner(self.inner)}"


def _inner(part: Match) -> str:
    compound = isinstance(part, Both | Either) or (isinstance(part, Kind) and " | " in part.label)
    return f"({part!r})" if compound else repr(part)


@dataclass(frozen=True)
class Glob(Match):
    """Layers whose path matches a glob (`*`, `?`, `[...]`, as in a shell; `*` also crosses `/`)."""

    pattern: str

    def matches(self, layer: Any, layers: Any) -> bool:
        names = (layer.path, layer.name, "/" + layer.path, "/" + layer.name)
        return any(fnmatch.fnmatchcase(name, self.pattern) for name in names)

    def __repr__(self) -> str:
        return repr(self.pattern)


@dataclass(frozen=True)
class Called(Match):
    """Called functions whose name matches a glob, as layers of kind `Call`."""

    pattern: str

    def matches(self, layer: Any, layers: Any) -> bool:
        function = layer.name.rpartition("/")[2]
        return layer.kind <= Call and fnmatch.fnmatchcase(function, self.pattern)

    def __repr__(self) -> str:
        return f"lrp.call({self.pattern!r})"


@dataclass(frozen=True)
class Predicate(Match):
    """Layers for which a function of the layer is true."""

    function: Callable[[Any], bool]

    def matches(self, layer: Any, layers: Any) -> bool:
        return bool(self.function(layer))

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


@dataclass(frozen=True)
class First(Match):
    inner: Match

    def matches(self, layer: Any, layers: Any) -> bool:
        if not self.inner.matches(layer, layers):
            return False
        return not any(self.inner.matches(layers[i], layers) for i in layer.above)

    def __repr__(self) -> str:
        return f"lrp.first({self.inner!r})"


@dataclass(frozen=True)
class Last(Match):
    inner: Match

    def matches(self, layer: Any, layers: Any) -> bool:
        if not self.inner.matches(layer, layers):
            return False
        return not any(self.inner.matches(layers[i], layers) for i in layer.below)

    def __repr__(self) -> str:
        return f"lrp.last({self.inner!r})"


@dataclass(frozen=True)
class Depth(Match):
    low: float
    high: float

    def matches(self, layer: Any, layers: Any) -> bool:
        if not layer.kind <= Linear:
            return False
        return self.low <= layer.depth and (layer.depth < self.high or self.high >= 1.0)

    def __repr__(self) -> str:
        return f"lrp.depth({self.low!r}, {self.high!r})"


def match(spec: MatchLike) -> Match:
    """A match from what a composite's entry may say: a match, a glob or a predicate.

    Args:
        spec: a `Match`, a path glob or a function of a layer.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(spec, Match):
        return spec
    if isinstance(spec, str):
        return Glob(spec)
    if callable(spec) and not isinstance(spec, type):
        return Predicate(spec)
    raise TypeError(
        f"{spec!r} is not a match: use a layer kind ({', '.join(KINDS)}), a path glob, "
        "first(...), last(...), depth(low, high) or a function of the layer; several are joined by "
        "|, as lrp.Conv | lrp.Dense."
    )


def parts(spec: Match) -> Iterator[Match]:
    """The simple matches that a match speaks of, without those that it excludes.

    Args:
        spec: a match.

    Returns:
        An iterator over matches.
    """
    if isinstance(spec, Both | Either):
        yield from (*parts(spec.left), *parts(spec.right))
    elif isinstance(spec, First | Last):
        yield from parts(spec.inner)
    elif not isinstance(spec, Not):
        yield spec


def globs(spec: Match) -> Iterator[Glob]:
    """All globs in a match, those that it excludes too.

    Args:
        spec: a match.

    Returns:
        An iterator over them.
    """
    if isinstance(spec, Glob):
        yield spec
    for part in ("left", "right", "inner"):
        if hasattr(spec, part):
            yield from globs(getattr(spec, part))


def differs_by_turn(
    spec: Match, repeated: Mapping[int, Iterable[int]], layers: Sequence[Any]
) -> bool:
    """Whether a match asks for a place that a layer of a loop has in some turns only.

    Args:
        spec: a match.
        repeated: layers that what they made in an earlier turn of a loop reaches again, and those
            above each in the first turn.
        layers: all layers.
    """
    if isinstance(spec, First | Last):
        speaks = {x.index for x in layers if spec.inner.matches(x, layers)}
        always = (
            above if isinstance(spec, First) else layers[i].below - layers[i].above
            for i, above in repeated.items()
            if i in speaks
        )
        return any(speaks.isdisjoint(others) for others in always)
    if isinstance(spec, Both | Either):
        either = (spec.left, spec.right)
        return any(differs_by_turn(part, repeated, layers) for part in either)
    if isinstance(spec, Not):
        return differs_by_turn(spec.inner, repeated, layers)
    return isinstance(spec, Depth) and any(layers[i].kind <= Linear for i in repeated)


def call(glob: str) -> Match:
    """A called function as one layer of kind `Call`, by its name.

    A composite's entry with this match keeps the function whole: `jit`, `custom_vjp`, `custom_jvp`
    and Pallas kernels are known by the name that their author gave, others by that of
    `lrp_jax.as_layer`. Of calls inside of each other the outermost that matches is the layer.

    Args:
        glob: the function's name (`*`, `?`, `[...]`, as in a shell).

    Raises:
        TypeError: for anything but a string.
        ValueError: for an empty one.

    Example:
        >>> import lrp_jax as lrp
        >>> lrp.call("flash_attention*")
        lrp.call('flash_attention*')
    """
    if not isinstance(glob, str):
        raise TypeError(
            f"lrp.call({glob!r}): it takes the name of a function, or a glob. A function gets a "
            "name from lrp.as_layer(function, name=...)."
        )
    if not glob:
        raise ValueError("lrp.call(''): no function has an empty name.")
    return Called(glob)


def first(spec: MatchLike) -> Match:
    """The layers of a match that have none of it between them and the explained input.

    Args:
        spec: a match.

    Example:
        >>> import lrp_jax as lrp
        >>> lrp.first(lrp.Conv)
        lrp.first(lrp.Conv)
    """
    return First(match(spec))


def last(spec: MatchLike) -> Match:
    """The layers of a match that have none of it between them and the output.

    Args:
        spec: a match.
    """
    return Last(match(spec))


def depth(low: float, high: float) -> Match:
    """Layers with weights at `low <= depth < high`; the first has depth 0, the last 1.

    Args:
        low: lower end, a fraction of the depth.
        high: upper end; from 1.0 on it includes the last layer.

    Raises:
        ValueError: unless `0 <= low < high`.
    """
    if not 0 <= low < high:
        raise ValueError(f"depth({low}, {high}): needs 0 <= low < high (fractions of the depth).")
    return Depth(float(low), float(high))
