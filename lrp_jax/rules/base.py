"""What every rule is: how contributions are shared, in a frozen dataclass that is a pytree."""

import dataclasses
import html
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import jax
import numpy as np

from .. import kinds
from .._layers.step import Way
from .._layers.terms import Term as Term
from ..kinds import Kind

Bias = Literal["absorb", "ignore", "distribute"]
Number = Any  # a float or an array that broadcasts against the layer's output


LINEAR_AND_SUMS = kinds.Linear | kinds.AvgPool | kinds.Merge
AFFINE = LINEAR_AND_SUMS | kinds.BatchNorm | kinds.Bias
PROPORTIONAL = AFFINE | kinds.Call


class Rule:
    """The base of all rules.

    Attributes:
        serves: the kinds of layers the rule can be given to.
        way: what the rule does with a layer; a class that defines `terms` or `input_relevance`
            need not say it.
        gradient: whether the rule is a modified gradient (no relevance, no input factor).
    """

    serves: ClassVar[Kind] = kinds.Linear
    way: ClassVar[Way] = Way.CONTRIBUTIONS
    gradient: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        own = vars(cls)
        if "input_relevance" in own:
            cls.way = Way.OWN
        elif "terms" in own and "way" not in own:
            cls.way = Way.CONTRIBUTIONS
        jax.tree_util.register_pytree_with_keys(cls, _flatten, lambda m, c: _unflatten(cls, m, c))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_class(type(self))  # dataclasses have an `__init__` of their own

    def terms(self, layer: Any) -> Sequence[Term]:
        """How a layer's relevance is shared among its contributions.

        Args:
            layer: has `relevance` (R_j), `output` (z_j), `value` (z_j with its bias, whatever the
                policy), `bias` (b_j), `positive` and `negative`
                (the sums of k+ and k-), all of the output's shape; `divide(R, z, eps)`, which is
                R / S(z); and `only_positive`, true where outputs <= 0 carry no relevance.

        Returns:
            The terms whose sum is the relevance of the inputs.
        """
        raise NotImplementedError(f"{type(self).__name__} does not share contributions")

    def shares(self, operands: int, gates: frozenset[int]) -> tuple[float, ...] | None:
        """Which share of a function's own gradient each of its operands gets.

        Args:
            operands: how many explained operands there are.
            gates: the operands that only gate; the one operand of a softmax does.

        Returns:
            One share for each operand; None for the gradient as it is.
        """
        return None

    @property
    def divisor(self) -> Number | None:
        """The epsilon of the denominator S(z); None where nothing is divided."""
        return getattr(self, "epsilon", getattr(self, "stabilizer", 0.0))

    def checked_terms(self, layer: Any) -> Sequence[Term]:
        """The terms, or an error that says what is wrong with them.

        Args:
            layer: as for `terms`.

        Raises:
            TypeError: for anything but a list of terms.
            ValueError: for a share that has not the shape of the layer's output.
        """
        found = self.terms(layer)
        name, shape = type(self).__name__, np.shape(layer.relevance)
        if isinstance(found, Term) or not isinstance(found, list | tuple):
            raise TypeError(f"{name}.terms returns a list of lrp.Term, not {type(found).__name__}.")
        for term in found:
            if not isinstance(term, Term):
                raise TypeError(f"{name}.terms returns a {type(term).__name__} where an lrp.Term "
                                "is due: lrp.Term(share, positive=1, negative=1).")  # fmt: skip
            if np.shape(term.share) != shape:
                raise ValueError(f"{name}.terms returns a share of shape {np.shape(term.share)} "
                                 f"for an output of shape {shape}.")  # fmt: skip
        return found

    @property
    def makes_relevance(self) -> bool:
        """Whether the result is not of the form x_i * c_i: relevance itself is carried on."""
        return getattr(self, "bias", None) == "distribute"

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and _key(self) == _key(other)

    def __hash__(self) -> int:
        return hash((type(self), _key(self)))

    def __repr__(self) -> str:
        shown = [
            f"{f.name}={show(getattr(self, f.name))}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.default is dataclasses.MISSING
            or _leaf_key(getattr(self, f.name)) != _leaf_key(f.default)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        doc = (type(self).__doc__ or "").strip()
        return f"<code>{html.escape(repr(self))}</code> {html.escape(doc.partition(chr(10))[0])}"


def _flatten(rule: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """Arrays are leaves; numbers written in Python stay constants of the compiled program."""
    fields = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    static = {n: v for n, v in fields.items() if _is_static(v)}
    data = {n: v for n, v in fields.items() if n not in static}
    children = [(jax.tree_util.GetAttrKey(n), v) for n, v in data.items()]
    return children, (tuple(static.items()), tuple(data))


def _unflatten(cls: type, meta: Any, children: Any) -> Any:
    rule: Any = object.__new__(cls)
    static, data = meta
    for name, value in (*static, *zip(data, children, strict=True)):
        object.__setattr__(rule, name, value)
    return rule


def _is_static(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_static, value))
    return value is None or isinstance(value, str | int | float)


def _leaf_key(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_leaf_key, value))
    if isinstance(value, jax.core.Tracer):
        return id(value)
    if isinstance(value, jax.Array | np.ndarray | np.generic) and np.ndim(value):
        array = np.asarray(value)
        return (array.shape, str(array.dtype), array.tobytes())
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return np.asarray(value).item()
    return value


def _key(rule: Any) -> tuple[Any, ...]:
    return tuple(_leaf_key(getattr(rule, f.name)) for f in dataclasses.fields(rule))


def show(value: Any) -> str:
    if isinstance(value, jax.core.Tracer):
        return f"<traced {value.aval}>"
    if isinstance(value, jax.Array | np.ndarray) and np.ndim(value):
        return "np.array(" + np.array2string(np.asarray(value), separator=", ", threshold=64) + ")"
    return repr(_leaf_key(value))


def check_class(cls: type) -> None:
    own = "__dataclass_fields__" in vars(cls)
    fields: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
    forgotten = not fields and not own
    if not own:
        notes = {n: a for n, a in inspect.get_annotations(cls).items() if "ClassVar" not in str(a)}
        forgotten = forgotten or not notes.keys() <= fields.keys()
    if forgotten or not getattr(cls, "__dataclass_params__").frozen:  # noqa: B009
        raise TypeError(
            f"write @dataclass(frozen=True, eq=False, repr=False) above class {cls.__name__}: the "
            "numbers of a rule are the fields of a frozen dataclass."
        )


def is_known(value: Any) -> bool:
    return isinstance(value, int | float | np.generic)


def is_number(value: Any) -> bool:
    """Whether a value is one number, traced or not."""
    kinds_of_numbers = int | float | np.number | np.ndarray | jax.Array
    return (
        isinstance(value, kinds_of_numbers) and not isinstance(value, bool) and np.ndim(value) == 0
    )


def check_bias(rule: Any) -> None:
    if rule.bias not in ("absorb", "ignore", "distribute"):
        raise ValueError(
            f"{type(rule).__name__}(bias={rule.bias!r}): bias is 'absorb' (its share is lost and "
            "reported), 'ignore' (zeroed) or 'distribute' (shared among the inputs)."
        )


def check_nonnegative(rule: Any, *names: str) -> None:
    for name in names:
        value = getattr(rule, name)
        shown = f"{type(rule).__name__}({name}={value!r})"
        if isinstance(value, str):
            raise TypeError(f"{shown}: {name} is a number.")
        if is_known(value) and not value >= 0:
            raise ValueError(f"{shown}: {name} must be >= 0.")
        if is_known(value) and np.isinf(value):
            raise ValueError(f"{shown}: {name} must be finite.")


class Sharing(Rule):
    """Rules that share contributions, with a bias policy."""

    def __post_init__(self) -> None:
        numbers = [f.name for f in dataclasses.fields(self) if f.name not in ("bias", "alpha")]  # type: ignore[arg-type]
        check_nonnegative(self, *numbers)
        check_bias(self)
