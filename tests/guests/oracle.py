"""Relevance from the definitions, for any function: what guests are held against.

It reads a tape of primitives and knows nothing of the library. What it knows:

- a value that is an elementwise function of another one is an activation: relevance passes;
- in a product with a statistic of the same value (a norm) the statistic is a constant;
- a softmax is `exp(u)` over its own sum, and a soft maximum the logarithm of that sum, with their
  own derivatives;
- of any other product each of its n factors gets one part in n, or, in CP-LRP, the signal all;
- everything else is linear and shares in proportion.

So AttnLRP and LRP-0 are a gradient with other derivatives at a few places, times the input
(`attention_relevance`), and the rules of CNNs are sums of positive and negative contributions
(`Images`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .tape import Const, Node, Tape, Value, names

CONTRACTIONS = names("dot_general conv_general_dilated ragged_dot_general")
SHAPE = names("reshape transpose squeeze broadcast_in_dim expand_dims")
CASTS = names("convert_element_type copy copy_p reduce_precision sharding_constraint "
                  "device_put optimization_barrier name")  # fmt: skip
AFFINE = names("add sub mul div neg add_any")
SUMS = names("reduce_sum reduce_window_sum cumsum scatter-add scatter_add")
TOTALS = names("reduce_sum scatter-add scatter_add")
MOVES = names(
    "slice dynamic_slice dynamic_update_slice gather concatenate pad rev split select_n scatter "
    "reduce_max reduce_min reduce_window_max reduce_window_min cummax cummin sort top_k stack "
    "unstack tile scatter-max scatter-min scatter_max scatter_min"
)
CUTS = names("slice rev")
PARTS = CUTS | names("split dynamic_slice gather pad select_n")
PICKS = CUTS | names("dynamic_slice gather top_k sort")
POWERS_ONLY = names("sqrt rsqrt cbrt square pow abs")
POWERS = names("sqrt rsqrt cbrt square integer_pow pow abs sign max min clamp floor")
FUNCTIONS = (
    names(
        "exp exp2 expm1 log log2 log1p tanh sin cos tan asin acos atan sinh cosh asinh acosh atanh "
        "logistic erf erfc erf_inv lgamma digamma ceil round atan2 rem"
    )
    | POWERS
)
LINEAR_MAPS = names("fft real imag complex conj triangular_solve linear_solve")
PRODUCTS = frozenset({"reduce_prod"})
KNOWN = CONTRACTIONS | SHAPE | CASTS | AFFINE | SUMS | MOVES | FUNCTIONS | LINEAR_MAPS | PRODUCTS


class Unknown(Exception):
    """A primitive of which the oracle says nothing."""


# -- What there is on a tape ----------------------------------------------------------------------


def is_scale_or_shift(node: Node) -> bool:
    """Elementwise and affine in one explained value, with constants."""
    divided = node.name == "div" and isinstance(node.operands[0], Const)
    return node.name in AFFINE and len(node.inputs) == 1 and not divided


def contracts(node: Node) -> bool:
    """Whether anything but a product along axes: a `dot_general` may sum over nothing."""
    return node.name != "dot_general" or bool(node.params["dimension_numbers"][0][0])


class Facts:
    """What the values of a tape are, found once.

    Attributes:
        roots: for a value, those of which it is an elementwise function, the nearest first.
        held: for a product, which operand is a statistic of the other.
        means: the sums inside of norms: means, and where they are subtracted.
        soft: the quotients that are softmaxes, the logarithms that are soft maxima, and the
            exponentials in them.
        maxima: those of soft maxima.
        parts: softmaxes from which numbers are picked to be normalised again.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        for node in tape.nodes:
            if node.name not in KNOWN:
                raise Unknown(f"{node.name} {[np.shape(o.value) for o in node.operands]}")
        self.position = {v: i for i, n in enumerate(tape.nodes) for v in n.outs}
        self.roots: dict[Value, list[Value]] = {}
        for node in tape.nodes:
            self.roots[node.out] = self._roots(node)
        self.maxima: set[Node] = set()
        self.soft = {part for node in tape.nodes for part in self._softmax(node)}
        products = (n for n in tape.nodes if n not in self.soft)
        self.held = {n: i for n in products if (i := self._statistic(n)) is not None}
        self.parts: set[Node] = set()
        for node in [*self.held]:
            if (whole := self._softmax_of_parts(node)) is not None:
                del self.held[node]
                self.soft.add(node)
                self.parts.add(whole)
        self.means = {part for n, i in self.held.items() for part in self._mean(n, i)}

    # -- activations

    def _roots(self, node: Node) -> list[Value]:
        chosen = node.name == "select_n" and not (
            isinstance(node.operands[0], Const) and not node.operands[0].touched
        )
        if not (node.name in AFFINE | FUNCTIONS | CASTS or chosen) or len(node.outs) > 1:
            return []
        shape = node.out.value.shape
        if any(v.value.shape != shape or jnp.iscomplexobj(v.value) for v in node.inputs):
            return []
        lines = [[v, *self.roots.get(v, ())] for v in node.inputs]
        return [v for v in lines[0] if all(v in line for line in lines[1:])]

    def activation_root(self, value: Value) -> Value | None:
        """Of which value another one is an activation, as far as nobody else reads between."""
        best, current = None, value
        if value.maker is None or value.maker in self.soft or value.maker in self.held:
            return None
        for above in self.roots.get(value, ()):
            node = current.maker
            assert node is not None
            if is_scale_or_shift(node) or node.name in CASTS:
                if any(c.number is None for c in node.constants):
                    return best
            elif node in self.soft:
                return best
            else:
                best = above
            current = above
            if len(current.readers) > 1 or self.belongs_to_sum(current):
                return best
        return best

    def belongs_to_sum(self, value: Value) -> bool:
        """Whether a value is a contraction, or one with affine steps behind."""
        node = self.links_up(value)[1].maker
        return node is not None and self.sums_products(node)

    @staticmethod
    def sums_products(node: Node) -> bool:
        return node.name in CONTRACTIONS and contracts(node)

    def links_up(self, value: Value) -> tuple[list[Node], Value]:
        """Scales, shifts and changes of shape that lead to a value, and where they begin."""
        chain: list[Node] = []
        while (node := value.maker) is not None:
            links = is_scale_or_shift(node) or node.name in SHAPE | CASTS
            if not links or (chain and len(value.readers) > 1):
                break
            chain.insert(0, node)
            value = node.inputs[0]
            if len(value.readers) > 1:
                break
        return chain, value

    # -- norms

    def _statistic(self, node: Node) -> int | None:
        if node.name not in ("mul", "div") or len(node.inputs) != 2:
            return None
        a, b = node.inputs
        for position in (1, 0) if node.name == "mul" and a is not b else (1,):
            value, statistic = node.inputs[1 - position], node.inputs[position]
            if self._is_statistic(statistic, value, rooted=node.name == "div"):
                return position
            if self._is_statistic(statistic, value, rooted=False, of_sums=True):
                return position
            rooted = node.name == "div"
            if any(self._is_statistic(statistic, v, rooted=rooted) for v in self._inside(value)):
                return position
        return None

    @staticmethod
    def is_power_of_more(node: Node) -> bool:
        """x^n, which is a product with x."""
        return node.name == "square" or (node.name == "integer_pow" and node.params["y"] > 1)

    @staticmethod
    def _inside(value: Value) -> Iterator[Value]:
        """Values in which another one is linear by contractions and products: what divides it may
        as well divide one of them, as in a cosine."""
        todo, contracted = [(value, False)], False
        while todo:
            value, contracted = todo.pop()
            node = value.maker
            if contracted:
                yield value
            if node is None:
                continue
            number = node.name == "mul" or node.name in CONTRACTIONS | TOTALS
            number = number or Facts.is_power_of_more(node)
            scales = node.name in ("mul", "div", "neg") and is_scale_or_shift(node)
            if number or scales or node.name in SHAPE | CASTS:
                several = contracted or (number and not scales)
                todo += [(v, several) for v in node.inputs]
            elif node.name == "div":
                todo.append((node.inputs[0], contracted))

    def _is_statistic(
        self, statistic: Value, value: Value, *, rooted: bool, of_sums: bool = False
    ) -> bool:
        """Whether all ways up from one value are powers and sums, and end at what the other is
        made of by centring, scaling and moving, with a root or a division on the way."""
        made_of, todo = set(), [value]
        while todo:
            v = todo.pop()
            made_of.add(v)
            node = v.maker
            if node is None:
                continue
            linear = is_scale_or_shift(node) or node.name in SHAPE | CASTS
            linear = linear or (of_sums and node.name in SUMS)
            if (linear or node.name == "sub") and node.inputs[0] not in made_of:
                todo.append(node.inputs[0])
        lowest = min(self.position.get(v, -1) for v in made_of)
        ways, seen = [(statistic, False, rooted)], set()
        ended = False
        while ways:
            way = ways.pop()
            if way in seen:
                continue
            seen.add(way)
            v, reduced, root = way
            if reduced and v in made_of:
                ended = True
                continue
            node = v.maker
            if node is None or self.position[v] < lowest:
                return False
            name = node.name
            divides = name == "div" and isinstance(node.operands[0], Const)
            root = root or name in ("rsqrt", "sqrt") or divides or (
                name in ("integer_pow", "pow") and node.params.get("y", -1) < 0
            )  # fmt: skip
            sums = name in SUMS | CONTRACTIONS | {"reduce_max", "reduce_min"}
            keeps = name in AFFINE | SHAPE | CASTS | POWERS | {"select_n", "slice", "gather"}
            keeps = keeps or name in ("concatenate", "pad")
            if not (keeps or (sums and root)):
                return False
            divisor = 1 if name == "div" and len(node.inputs) == 2 else None
            ways += [(o, reduced or sums, root or i == divisor) for i, o in enumerate(node.inputs)]
        return ended

    def _mean(self, product: Node, held: int) -> Iterator[Node]:
        """Of what a norm scales, the mean and where it is subtracted."""
        value, statistic = product.inputs[1 - held], product.inputs[held]
        node = self.links_up(value)[1].maker
        while node is not None and is_scale_or_shift(node):  # the statistic reads it too
            node = self.links_up(node.inputs[0])[1].maker
        own = self._is_statistic(statistic, value, rooted=product.name == "div")
        if node is not None and node.name in SUMS and not own:  # and no pool before the norm
            yield node
        if node is not None and node.name == "sub" and len(node.inputs) == 2:
            below = self.links_up(node.inputs[1])[1].maker
            if below is not None and below.name in SUMS:
                whole, summed = (self.links_up(v)[1] for v in (node.inputs[0], below.inputs[0]))
                if whole is summed:
                    yield from (node, below)

    def is_norm_of_two_parts(self, node: Node) -> bool:
        """Whether a sum is x s + (b - mean(x) s), with a statistic s of x."""
        if node.name not in ("add", "sub") or len(node.inputs) != 2:
            return False
        starts = [self.links_up(v)[1] for v in node.inputs]
        return all(v.maker in self.held and len(v.readers) == 1 for v in starts)

    # -- softmaxes

    def _softmax(self, node: Node) -> Iterator[Node]:
        """Of a softmax the quotient and the exponential, of a soft maximum the logarithm and it."""
        if node.name == "log":
            total = self._above(node.inputs[0], SUMS)
            exponential = total and self._above(total.inputs[0], frozenset({"exp"}))
            if exponential is not None:
                self.maxima.update((node, exponential))
                yield from (node, exponential)
        if node.name != "div" or len(node.inputs) != 2:
            return
        total = self._above(node.inputs[1], SUMS)
        exponential = self._above(node.inputs[0], frozenset({"exp"}))
        if total is None or exponential is None:
            return
        if self._above(total.inputs[0], frozenset({"exp"})) is exponential:
            yield from (node, exponential)

    @staticmethod
    def _above(value: Value, wanted: frozenset[str]) -> Node | None:
        """The nearest node of some names, through constants and moves."""
        while (node := value.maker) is not None:
            if node.name in wanted:
                return node
            passes = node.name in SHAPE | CASTS | MOVES | {"max", "abs"} or is_scale_or_shift(node)
            if not passes or len(node.inputs) != 1:
                return None
            value = node.inputs[0]
        return None

    # -- products

    def is_product(self, node: Node) -> bool:
        """A product or quotient of two explained values that is nothing of the above."""
        if node in self.held or node in self.soft or len(node.inputs) != 2:
            return False
        elementwise = node.name in ("mul", "div")
        if elementwise and self.activation_root(node.out) is not None:
            return False
        return elementwise or node.name in CONTRACTIONS

    def factors(self, node: Node) -> list[tuple[Node, int]]:
        """The factors of a product of products, each as an operand of the node that reads it."""
        found: list[tuple[Node, int]] = []
        for i, value in enumerate(node.inputs):
            inner = self.product_above(value, node)
            found += [(node, i)] if inner is None else self.factors(inner[0])
        return found

    def product_above(self, value: Value, reader: Node) -> tuple[Node, list[Node]] | None:
        """A product number by number that another one reads, maybe scaled or spread out on the
        way; and that way back."""
        way: list[Node] = []
        while (node := value.maker) is not None and reader.name != "dot_general":
            if node.name in ("mul", "div") and self.is_product(node):
                return node, way
            scales = node.name in ("mul", "div", "neg") and is_scale_or_shift(node)
            picks = node.name in CUTS and self._is_multiplied(value)
            if not (scales or picks or node.name in SHAPE | CASTS):
                break
            way.append(node)
            value = node.inputs[0]
        return None

    def _softmax_of_parts(self, node: Node) -> Node | None:
        """The softmax from which a norm's numbers are picked, along its own axis: what they are,
        divided by their sum, is the softmax of the picked logits."""
        value, moved = node.inputs[1 - self.held[node]], False
        while (maker := value.maker) is not None and maker not in self.soft:
            if maker.name not in PICKS | SHAPE | CASTS:
                return None
            moved = moved or maker.name in PICKS
            value = maker.inputs[0]
        return maker if moved and maker not in self.maxima else None

    def _is_multiplied(self, value: Value) -> bool:
        """Whether all who read a value multiply it, perhaps after moves and scales."""
        return bool(value.readers) and all(
            self._is_multiplied(r.out)
            if r.name in PICKS | SHAPE | CASTS
            or (r.name in ("mul", "div", "neg") and is_scale_or_shift(r))
            else r.name in ("mul", "div") and self.is_product(r)
            for r in value.readers
        )

    def _is_power(self, value: Value, root: Value) -> bool:
        """Whether a function of one value is a power of it, up to a number."""
        todo = [value]
        while todo:
            value = todo.pop()
            node = value.maker
            if value is root or node is None:
                continue
            multiplies = node.name in ("mul", "div", "neg", "integer_pow", *POWERS_ONLY, *CASTS)
            if not multiplies or any(c.number is None for c in node.constants):
                return False
            todo += node.inputs
        return True

    def gate_rank(self, value: Value) -> int:
        """How much a value looks like a gate: softmax 3, sigmoid 2, another function 1, else 0."""
        while (node := value.maker) is not None:
            if node in self.soft and node.name == "div":
                return 3
            if node.name == "logistic":
                return 2
            scales = node.name in ("mul", "div") and is_scale_or_shift(node)
            if scales and (node.constants[0].number or 0) > 0:
                value = node.inputs[0]
                continue
            root = self.activation_root(value)
            if root is not None and not self._is_power(value, root):
                return 1
            if root is not None:
                if root.maker is not None and is_written_out(root.maker, self):
                    return 1  # a power of a number and another one
                value = root
                continue
            if node.name in ("add", "sub", "add_any") and len(node.inputs) == 2:
                return min(map(self.gate_rank, node.inputs))
            if node in self.held:  # shares of the experts that were chosen
                value = node.inputs[1 - self.held[node]]
                continue
            scales = is_scale_or_shift(node) or (len(node.inputs) == 1 and not contracts(node))
            mixes = len(node.inputs) == 1 and self.sums_products(node)
            if not (node.name in SHAPE | CASTS | MOVES | SUMS or scales or mixes):
                return 0
            value = node.inputs[0]
            if mixes and any(c.weights for c in node.constants):  # heads that are mixed
                rank = self.gate_rank(value)
                return rank if rank == 3 else 0
        return 0


def _weighs(node: Node, facts: Facts) -> bool:
    """Whether a sum is one of numbers times weights: a matrix product written out."""
    if len(node.inputs[0].readers) > 1:  # a mean inside of a norm
        return False
    chain, _ = facts.links_up(node.inputs[0])
    moved = max((i for i, n in enumerate(chain) if n.name in ("transpose", "reshape")), default=-1)
    axes, shape = node.params["axes"], node.inputs[0].value.shape
    return any(
        c.weights
        and len(c.value.shape) == len(shape)
        and any(c.value.shape[a] > 1 and a not in c.repeated for a in axes)
        for n in chain[moved + 1 :]
        if n.name == "mul"
        for c in n.constants
    )


def counted(tape: Tape) -> Counter[str]:
    """How many layers of some kinds a tape has, for the kinds that one primitive tells.

    Args:
        tape: of a function without loops.
    """
    facts, found = Facts(tape), Counter[str]()
    for node in tape.nodes:
        weights = any(c.weights for c in node.constants)
        if jnp.iscomplexobj(node.out.value):
            continue  # inside of a map that is one layer
        if node.name in CONTRACTIONS and contracts(node):
            linear = "Dense" if node.name != "conv_general_dilated" else "Conv"
            found["MatMul" if len(node.inputs) == 2 else linear if weights else "Merge"] += 1
        elif node in facts.soft - facts.parts and node.name == "div":
            found["Softmax"] += 1
        elif node.name == "reduce_window_max":
            found["MaxPool"] += 1
        elif node.name == "reduce_sum" and _weighs(node, facts):
            found["Dense"] += 1
    return found


# -- Transformers ---------------------------------------------------------------------------------


def attention_relevance(tape: Tape, start: Any, gate: bool = False) -> Any:
    """LRP-0 in linear layers with AttnLRP's rules, or those of CP-LRP.

    Args:
        tape: of the function; of token ids, the relevance of each one's row is summed.
        start: the output's relevance, as its multiplier.
        gate: whether softmaxes, and what gates, are constants (CP-LRP).

    Returns:
        Relevance of the shape of the explained input.
    """
    facts = Facts(tape)
    multiplier: dict[Value, Any] = {tape.output: start}

    def give(value: Value, more: Any) -> None:
        have = multiplier.get(value)
        multiplier[value] = more if have is None else have + more

    def multiplied(node: Node, c: list[Any], shares: dict[tuple[Node, int], float]) -> None:
        for i, (value, more) in enumerate(zip(node.inputs, pulled(node, c), strict=True)):
            inner = facts.product_above(value, node)
            more = -more if node.name == "div" and i == 1 else more
            if inner is None:
                give(value, more * shares[node, i])
                continue
            for step in inner[1]:
                (more,) = pulled(step, [more])
            multiplied(inner[0], [more], shares)

    for node in reversed(tape.nodes):
        above = [multiplier.pop(v, None) for v in node.outs]
        if all(c is None for c in above):
            continue
        c = [
            jnp.zeros_like(v.value) if m is None else m
            for v, m in zip(node.outs, above, strict=True)
        ]
        root = facts.activation_root(node.out)
        if root is not None:
            give(root, c[0] * ratio(node.out.value, root.value))
        elif is_written_out(node, facts):  # a number minus a function is a function
            root = facts.activation_root(node.inputs[0]) or node.inputs[0]
            give(root, c[0] * ratio(node.out.value, root.value))
        else:
            if facts.is_product(node):
                multiplied(node, c, _shares(facts.factors(node), facts, gate))
                continue
            mixed = None if gate else between(node, facts)
            if mixed is not None:
                function, base = mixed
                give(function, c[0] * ratio(base.value, function.value) / 2)
            for i, (value, more) in enumerate(zip(node.inputs, pulled(node, c), strict=True)):
                if facts.held.get(node) == i:
                    continue
                share = 0.5 if mixed is not None and value is mixed[1] else 1.0
                if node.name in PRODUCTS:
                    share = node.out.value.size / value.value.size
                if gate and node in facts.soft and node not in facts.maxima:
                    share = 0.0
                if share:
                    give(value, more * share)
    if isinstance(tape.x, Value):
        return tape.x.value * multiplier.get(tape.x, jnp.zeros_like(tape.x.value))
    found = jnp.zeros(tape.x.value.size + 1)  # the last is for those that no id chose
    for row, origin, features in tape.lookups:
        relevance = (row.value * multiplier.get(row, 0.0)).sum(features)
        found = found.at[origin].add(relevance)
    return found[:-1].reshape(tape.x.value.shape)


def between(node: Node, facts: Facts) -> tuple[Value, Value] | None:
    """Of b + g (a - b) with a function g, g and b: as g a + (1 - g) b, shared by halves."""
    if node.name != "add" or len(node.inputs) != 2:
        return None
    for base, product in itertools.permutations(node.inputs):
        maker = product.maker
        if maker is None or maker.name != "mul" or len(maker.inputs) != 2:
            continue
        for function, other in itertools.permutations(maker.inputs):
            inner = other.maker
            is_difference = inner is not None and inner.name == "sub"
            is_function = facts.roots.get(facts.links_up(function)[1])  # and no layer with a bias
            if is_difference and inner.operands[1] is base and is_function:
                return function, base
    return None


def _shares(
    factors: list[tuple[Node, int]], facts: Facts, gate: bool
) -> dict[tuple[Node, int], float]:
    values = [node.inputs[i] for node, i in factors]
    # Functions of one value are one factor, and a function.
    roots = [([v, *facts.roots.get(v, ())])[-1] for v in values]
    ranks = [
        max(facts.gate_rank(v), int(roots.count(root) > 1))
        for v, root in zip(values, roots, strict=True)
    ]
    held = [
        len(factors) > 2 and node.name == "div" and i == 1
        and any(facts._is_statistic(v, w, rooted=True) for w in values if w is not v)
        for (node, i), v in zip(factors, values, strict=True)
    ]  # fmt: skip
    least = min(rank for rank, h in zip(ranks, held, strict=True) if not h)
    takes = [not h and (not gate or rank == least) for rank, h in zip(ranks, held, strict=True)]
    taking = Counter(r for r, t in zip(roots, takes, strict=True) if t)
    return {
        key: t / taking[root] / len(taking) if t else 0.0
        for key, root, t in zip(factors, roots, takes, strict=True)
    }


def ratio(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0."""
    return jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1, b))


def pulled(node: Node, c: list[Any]) -> tuple[Any, ...]:
    """The derivative of a node, transposed."""
    made, pull = jax.vjp(node.of_inputs, *(v.value for v in node.inputs))
    given = [
        m.astype(y.dtype) if jnp.issubdtype(y.dtype, jnp.inexact)
        else np.zeros(y.shape, jax.dtypes.float0) for m, y in zip(c, made, strict=True)
    ]  # fmt: skip
    return pull(given)


def is_written_out(node: Node, facts: Facts) -> bool:
    """Whether a number of the code is added to what no layer and no sum makes, nor a part of what
    they make: a function, such as 1 - z."""
    if node.name not in ("add", "sub") or len(node.inputs) != 1:
        return False
    if node.constants[0].number is None:
        return False
    _, start = facts.links_up(node.out)
    while (maker := start.maker) is not None and maker.name in PARTS and len(maker.inputs) == 1:
        _, start = facts.links_up(maker.inputs[0])
    if maker is None:
        return not _leads_into_sum(node.out, facts)
    sums = maker.name in SUMS or (
        len(maker.inputs) == 2 and (maker.name in ("add", "sub") or facts.sums_products(maker))
    )
    return not (sums or maker.name in CONTRACTIONS or maker in facts.held)


def _leads_into_sum(value: Value, facts: Facts) -> bool:
    """Whether nothing but a contraction with constants reads a value, or its changes of shape."""
    while len(value.readers) == 1 and isinstance(reader := value.readers[0], Node):
        if len(reader.inputs) == 1 and facts.sums_products(reader):
            return True
        if not (is_scale_or_shift(reader) or reader.name in SHAPE | CASTS):
            return False
        value = reader.out
    return False


# -- Images ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """An affine layer z = x w + b as its positive and negative contributions.

    Attributes:
        value: x.
        output: z.
        bias: b.
        contributions: for a share of each output, the positive contributions, summed over the
            inputs (`forward`), or sent back to them (`back`); of one sign.
    """

    output: Any
    bias: Any
    forward: Callable[[int], Any]
    back: Callable[[Any, int], Any]


Rule = Callable[[Layer, Any], Any]
"""From a layer and the relevance of its output to that of its input."""


def stable(relevance: Any, z: Any, epsilon: float) -> Any:
    """R / (z + epsilon sgn(z)), and 0 where that is 0."""
    return ratio(relevance, z + jnp.where(z >= 0, epsilon, -epsilon))


def epsilon(size: float) -> Rule:
    def rule(layer: Layer, relevance: Any) -> Any:
        share = stable(relevance, layer.output, size)
        return layer.back(share, 1) + layer.back(share, -1)

    return rule


def alpha_beta(alpha: float, beta: float, size: float) -> Rule:
    def rule(layer: Layer, relevance: Any) -> Any:
        up = layer.forward(1) + jnp.maximum(layer.bias, 0)
        down = layer.forward(-1) + jnp.minimum(layer.bias, 0)
        found = layer.back(alpha * stable(relevance, up, size), 1)
        return found - layer.back(beta * stable(relevance, down, size), -1) if beta else found

    return rule


def gamma(weight: float, size: float) -> Rule:
    def rule(layer: Layer, relevance: Any) -> Any:
        found = 0.0
        for sign in (1, -1):
            own = layer.forward(sign) + (
                jnp.maximum(layer.bias, 0) if sign > 0 else jnp.minimum(layer.bias, 0)
            )
            chosen = jnp.where(sign * layer.output > 0, relevance, 0)
            share = stable(chosen, layer.output + weight * own, size)
            found += (1 + weight) * layer.back(share, sign) + layer.back(share, -sign)
        return found

    return rule


@dataclass(frozen=True)
class Rules:
    """Which rule an image composite has for what.

    Attributes:
        conv: of convolutions.
        dense: of dense layers.
        box: lowest and highest input, for z^B in the first convolutions.
        sums: the stabiliser of sums and pools.
    """

    conv: Rule
    dense: Rule
    box: tuple[float, float] | None = None
    sums: float = 1e-6


class Images:
    """One backward pass over a tape that carries relevance, rule by rule as written out."""

    def __init__(self, tape: Tape, rules: Rules) -> None:
        self.tape, self.facts, self.rules = tape, Facts(tape), rules
        self.relevance: dict[Value, Any] = {}
        self.below: dict[Node, bool] = {}
        met: set[Value] = set()
        for node in tape.nodes:  # what has a convolution above it
            conv = node.name == "conv_general_dilated"
            self.below[node] = any(v in met for v in node.inputs)
            if conv or self.below[node]:
                met.update(node.outs)

    def run(self, start: Any) -> Any:
        self.give(self.tape.output, start)
        for node in reversed(self.tape.nodes):
            above = [self.relevance.pop(v, None) for v in node.outs]
            if any(r is not None for r in above):
                zeros = (jnp.zeros_like(v.value) for v in node.outs)
                self.node(node, [z if r is None else r for z, r in zip(zeros, above, strict=True)])
        return self.relevance[self.tape.x]

    def give(self, value: Value, more: Any) -> None:
        have = self.relevance.get(value)
        self.relevance[value] = more if have is None else have + more

    def node(self, node: Node, relevance: list[Any]) -> None:
        facts, out = self.facts, node.out
        root = facts.activation_root(out)
        if root is not None:
            return self.give(root, relevance[0])
        chain, start = ([], out)
        if is_scale_or_shift(node):
            chain, start = facts.links_up(out)
        read_once = not chain or len(start.readers) == 1
        core = start.maker
        if core is not None and read_once and self.is_contraction(core):
            return self.contraction(core, chain, relevance[0])
        if core is not None and read_once and (core in facts.held or self.is_sum(core)):
            only_scaled = all(n.name in ("mul", "div", *SHAPE, *CASTS) for n in chain)
            if core in facts.held or only_scaled:
                parts = core in facts.means or facts.is_norm_of_two_parts(core)
                norm = core in facts.held or parts
                size = 0.0 if norm else self.rules.sums
                share = stable(relevance[0], out.value, size)
                for n in reversed(chain):
                    (share,) = pulled(n, [share])
                return self.share(core, share, facts.held.get(core))
        if chain:
            return self.alone(chain, start, relevance[0])
        if facts.is_product(node):
            for key, part in _shares(facts.factors(node), facts, gate=False).items():
                negative = key[0].name == "div" and key[1] == 1
                assert key[0] is node, "products of two"
                share = ratio(relevance[0], out.value)
                more = pulled(node, [share])[key[1]] * part * (-1 if negative else 1)
                self.give(node.inputs[key[1]], node.inputs[key[1]].value * more)
            return None
        for value, more in zip(node.inputs, pulled(node, relevance), strict=True):
            self.give(value, more)  # a move
        return None

    def share(self, node: Node, share: Any, held: int | None = None) -> None:
        for i, (value, more) in enumerate(zip(node.inputs, pulled(node, [share]), strict=True)):
            if i != held:
                self.give(value, value.value * more)

    def is_contraction(self, node: Node) -> bool:
        return node.name in CONTRACTIONS and len(node.inputs) == 1 and contracts(node)

    @staticmethod
    def is_sum(node: Node) -> bool:
        return node.name in SUMS or (node.name in ("add", "sub") and len(node.inputs) == 2)

    def alone(self, chain: list[Node], start: Value, relevance: Any) -> None:
        """A scale and shift beside nothing: relevance passes, but for a shift alone."""
        while not is_scale_or_shift(chain[0]):
            start, chain = chain[0].out, chain[1:]
        end = chain[-1].out
        shifts = [n for n in chain if n.name in ("add", "sub")]
        arrays = [c for n in chain if n.name in ("mul", "div") for c in n.constants]
        is_bias = bool(shifts) and all(c.value.size == 1 or c.number is not None for c in arrays)
        if is_bias and not is_written_out(chain[-1], self.facts):
            relevance = ratio(stable(relevance, end.value, self.rules.sums), 1.0)
            for n in reversed(chain):
                (relevance,) = pulled(n, [relevance])
            return self.give(start, start.value * relevance)
        for n in reversed(chain):
            if n.name in SHAPE | CASTS:
                (relevance,) = pulled(n, [relevance])
        return self.give(start, relevance)

    def contraction(self, core: Node, after: list[Node], relevance: Any) -> None:
        before, start = self.leading(core)

        def prepared(x: Any) -> Any:
            for n in before:
                (x,) = n.of_inputs(x)
            return x

        def finished(z: Any) -> Any:
            for n in after:
                (z,) = n.of_inputs(z)
            return z

        def arranged(z: Any) -> Any:
            for n in after:
                if n.name in SHAPE | CASTS:
                    (z,) = n.of_inputs(z)
            return z

        x = start.value
        zero = jnp.zeros_like(x)
        inner = prepared(x) - prepared(zero)  # the contraction's own input, without any shift
        (raw,) = core.of_inputs(core.inputs[0].value)
        nothing = finished(jnp.zeros_like(raw))
        _, rearranged = jax.vjp(arranged, raw)
        _, unfinished = jax.vjp(finished, raw)
        scale = unfinished(jnp.ones_like(nothing))[0]
        _, moved = jax.vjp(prepared, x)
        output = finished(raw)
        bias = finished(core.of_inputs(prepared(zero))[0])
        weights = next(o for o in core.operands if isinstance(o, Const))

        def product(x: Any, w: Any) -> Any:
            given = [w if o is weights else x for o in core.operands]
            (y,) = core.apply(*given)
            return y

        def parts(sign: int) -> list[tuple[int, int, int]]:
            return [
                (a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1) if a * b * c == sign
            ]

        def of_sign(v: Any, sign: int) -> Any:
            return jnp.maximum(v, 0) if sign > 0 else jnp.minimum(v, 0)

        def forward(sign: int) -> Any:
            total = 0.0
            for a, b, c in parts(sign):
                total += of_sign(scale, c) * product(of_sign(inner, a), of_sign(weights.value, b))
            return arranged(total)

        def back(share: Any, sign: int) -> Any:
            total = jnp.zeros_like(inner)
            for a, b, c in parts(sign):
                own = of_sign(inner, a)
                _, pull = jax.vjp(lambda v, b=b: product(v, of_sign(weights.value, b)), own)
                total += own * pull(of_sign(scale, c) * rearranged(share)[0])[0]
            return total

        layer = Layer(output, bias, forward, back)
        conv = core.name == "conv_general_dilated"
        if not any(c.weights for c in core.constants):
            found = epsilon(self.rules.sums)(layer, relevance)
        elif conv and self.rules.box is not None and not self.below[core]:
            return self.give(
                start, self.box(x, prepared, core, arranged, scale, weights, relevance)
            )
        else:
            found = (self.rules.conv if conv else self.rules.dense)(layer, relevance)
        # What the contraction's own input gets goes to where each number came from.
        per_number = ratio(found, inner)
        return self.give(start, x * moved(per_number)[0])

    def box(self, x, prepared, core, arranged, scale, weights, relevance) -> Any:  # type: ignore[no-untyped-def]
        """z^B: x w - low w+ - high w-, with its own denominator."""
        assert self.rules.box is not None
        low, high = (jnp.full_like(x, bound) for bound in self.rules.box)

        def signed(v: Any, sign: int) -> Any:
            """The layer without its bias and with weights of one sign, at v."""
            inside = prepared(v) - prepared(0 * v)
            w = weights.value
            up, down = jnp.maximum(w, 0), jnp.minimum(w, 0)

            def product(w: Any) -> Any:
                return core.apply(*(w if o is weights else inside for o in core.operands))[0]

            first, second = (up, down) if sign > 0 else (down, up)
            y = jnp.maximum(scale, 0) * product(first) + jnp.minimum(scale, 0) * product(second)
            return arranged(y)

        def z(x: Any, low: Any, high: Any) -> Any:
            return signed(x, 1) + signed(x, -1) - signed(low, 1) - signed(high, -1)

        total, pull = jax.vjp(z, x, low, high)
        shares = pull(stable(relevance, total, 1e-6))
        return sum(v * c for v, c in zip((x, low, high), shares, strict=True))

    def leading(self, core: Node) -> tuple[list[Node], Value]:
        """Scales, shifts, padding and changes of shape in front of a contraction, read once."""
        chain: list[Node] = []
        value = core.inputs[0]
        while (node := value.maker) is not None and len(value.readers) == 1:
            padded = node.name == "pad" and len(node.inputs) == 1
            if not (is_scale_or_shift(node) or padded or node.name in SHAPE | CASTS):
                break
            chain.insert(0, node)
            value = node.inputs[0]
        # What ends in another layer belongs to that one.
        if value.maker is not None and len(value.readers) == 1:
            maker = value.maker
            if self.is_contraction(maker) or maker in self.facts.held:
                return self._tail(chain, value)
            if self.is_sum(maker) and all(n.name not in ("add", "sub") for n in chain):
                return self._tail(chain, value)
        return chain, value

    @staticmethod
    def _tail(chain: list[Node], value: Value) -> tuple[list[Node], Value]:
        """The moves at the end of a chain whose scales and shifts belong to the layer before."""
        while chain and any(is_scale_or_shift(n) for n in chain):
            value, chain = chain[0].out, chain[1:]
        return chain, value
