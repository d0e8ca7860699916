"""The plan: which layer gets which rule, and which entry of the composite chose it.

A plan is made from shapes alone. It prints as a table, compares, and goes to JSON and back.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from ._tables import Shown, Table, brief, counted
from .kinds import KINDS, Kind


@dataclass(frozen=True)
class Layer:
    """One layer of the explained function.

    Attributes:
        index: its place in the order of execution.
        path: its unique path: the tree path of its weights, or the scope it is written in.
        name: the path without the number that tells reuses apart.
        kind: what it is.
        inputs: shapes of its explained inputs.
        output: shape of its output.
        weights: tree paths of its parameters.
        rule: the rule that serves it, as the code that makes it.
        chosen_by: the entry of the composite that chose the rule.
        depth: 0 for the first layer with weights on its way, 1 for the last.
        above: indices of the layers between it and the explained input.
        below: indices of the layers between it and the output.
        parents: indices of the layers it reads from directly, -1 for the explained input.
        source: the line that wrote it.
    """

    index: int
    path: str
    name: str
    kind: Kind
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    weights: tuple[str, ...]
    rule: str
    chosen_by: str
    depth: float
    above: frozenset[int]
    below: frozenset[int]
    parents: tuple[int, ...]
    source: str = dataclasses.field(compare=False)


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """Which layer gets which rule, and why.

    Attributes:
        layers: the layers in order of execution.
        warnings: globs that matched nothing, entries shadowed by others, arrays without a name.
        unmatched: the user's entries by kind or position that found no such layer here.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: x @ w["out"]
        >>> print(lrp.plan(f, lrp.Epsilon())({"out": jnp.ones((3, 2))}, jnp.ones((1, 3))))
        layer  kind   input   output  rule       chosen by
        -----  -----  ------  ------  ---------  ----------
        out    Dense  (1, 3)  (1, 2)  Epsilon()  lrp.Linear
    """

    layers: tuple[Layer, ...]
    warnings: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()

    def _title(self) -> str:
        return counted(len(self.layers), "layer")

    def _table(self) -> Table:
        rows = tuple(
            (
                layer.path,
                layer.kind.label,
                ", ".join(map(str, layer.inputs)),
                str(layer.output),
                brief(layer.rule),
                brief(_shortly(layer)),
            )
            for layer in self.layers
        )
        notes = [f"warning: {text}" for text in self.warnings]
        if self.unmatched:
            notes.append(f"no layer here for {', '.join(map(brief, self.unmatched))}")
        return Table(
            ("layer", "kind", "input", "output", "rule", "chosen by"),
            rows,
            notes=tuple(notes),
            tints=tuple(row[1] for row in rows),
        )

    def to_json(self) -> str:
        """The plan as JSON."""

        def plain(layer: Layer) -> dict[str, Any]:
            fields = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)}
            fields["kind"] = layer.kind.label
            fields["above"], fields["below"] = sorted(layer.above), sorted(layer.below)
            return fields

        content = {
            "layers": [plain(x) for x in self.layers],
            "warnings": list(self.warnings),
            "unmatched": list(self.unmatched),
        }
        return json.dumps(content, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """A plan from what `to_json` wrote.

        Args:
            text: JSON.

        Raises:
            ValueError: for text that is no plan.
        """
        try:
            content = json.loads(text)
            layers = tuple(_layer_from(fields) for fields in content["layers"])
            return cls(layers, tuple(content["warnings"]), tuple(content["unmatched"]))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"a plan is the text that to_json wrote, got {str(text)[:40]!r}; of a file: "
                "Plan.from_json(Path(path).read_text())"
            ) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this JSON is no plan of lrp_jax: {error!r}") from error


def _shortly(layer: Layer) -> str:
    """What chose a layer's rule; of many kinds, the one that it is of."""
    names = [name.removeprefix("lrp.") for name in layer.chosen_by.split(" | ")]
    if len(names) < 3 or not all(name in KINDS for name in names):
        return layer.chosen_by
    return f"lrp.{next(name for name in names if layer.kind <= KINDS[name])} | ..."


def _layer_from(fields: dict[str, Any]) -> Layer:
    fields = dict(fields)
    fields["kind"] = KINDS[fields["kind"]]
    fields["inputs"] = tuple(tuple(s) for s in fields["inputs"])
    fields["output"], fields["weights"] = tuple(fields["output"]), tuple(fields["weights"])
    fields["above"], fields["below"] = frozenset(fields["above"]), frozenset(fields["below"])
    fields["parents"] = tuple(fields.get("parents", ()))  # plans of older releases have none
    return Layer(**fields)


def refuse_warnings(plan: Plan) -> None:
    """What `strict=True` asks for.

    Args:
        plan: a plan.

    Raises:
        ValueError: listing the plan's warnings, where it has any.
    """
    if plan.warnings:
        listed = "\n".join(f"- {text}" for text in plan.warnings)
        raise ValueError(f"strict=True makes errors of the plan's warnings:\n{listed}")
