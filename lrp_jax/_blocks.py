"""Grouping the equations of a jaxpr into layers, by dataflow alone.

The analysis walks from the outputs to the inputs and covers every variable that is needed with one
`Step`: a layer, a native piece (numbers are only moved), or a body to enter. Nothing is recognised
by the name of a function, and nothing here sees an array.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from . import _compat, kinds
from . import _primitives as prim
from ._affine import (
    SCALING,
    feature_axes,
    is_literal_link,
    is_mean_factor,
    may_turn,
    pads_with_zeros,
    scales_along,
)  # fmt: skip
from ._compat import Equation, Var, is_literal
from ._complex import adds_constant, between_reals, is_complex
from ._facts import dominators, names_of, nonnegative_variables
from ._graph import Graph
from ._layers import (
    Body,
    Chain,
    Contraction,
    Frame,
    Held,
    Native,
    Pointwise,
    Product,
    Shift,
    Step,
    Sum,
    UnsupportedOperation,
)  # fmt: skip
from ._patterns import find_normalizations, find_softmaxes
from ._primitives import Family, family
from ._signs import is_nonnegative, is_relu, zero_at_zero
from ._trace import inline, layer_name
from .kinds import Kind


def analyse(
    closed_jaxpr: Any,
    explained: Iterable[bool],
    names: Iterable[str],
    nonnegative: Iterable[bool] | None = None,
    outputs: Iterable[bool] | None = None,
) -> Frame:
    """Group the equations of a flat jaxpr into steps.

    Args:
        closed_jaxpr: a jaxpr without plain calls (`_trace.inline`).
        explained: which inputs are explained.
        names: tree paths of the inputs.
        nonnegative: which inputs are known to be non-negative.
        outputs: which outputs carry relevance (default: every explained one).

    Raises:
        UnsupportedOperation: naming the operation, the layer, the line and the remedy.
    """
    return _Analysis(closed_jaxpr, tuple(explained), tuple(names), nonnegative, outputs).frame()


class _Analysis:
    def __init__(
        self, closed_jaxpr: Any, explained: Any, names: Any, nonnegative: Any, outputs: Any
    ) -> None:
        self.graph = Graph(closed_jaxpr, explained, tuple(outputs) if outputs is not None else None)
        self.explained = explained
        self.names = names_of(self.graph, names)
        self.dominator = dominators(self.graph)
        self.softmaxes = find_softmaxes(self.graph)
        known = self.dominator.keys() | self.softmaxes.keys()
        self.normalizations = find_normalizations(self.graph, known)
        self.nonnegative = nonnegative_variables(self.graph, nonnegative)

    def frame(self) -> Frame:
        graph = self.graph
        needed = [a for a, flag in zip(graph.jaxpr.outvars, graph.outputs, strict=True) if flag]
        needed += [
            a
            for eqn in graph.eqns
            if not graph.is_live(eqn)
            for a in eqn.invars
            if not is_literal(a) and a in graph.live
        ]
        steps: dict[int, Step] = {}
        covered: set[Var] = set()
        heap = sorted(set(needed), key=lambda v: graph.position[v])
        while heap:
            var = heap.pop()
            if var in covered or graph.position[var] < 0:
                continue
            step = self._cover(var)
            steps[graph.position[var]] = step
            covered.update(step.outputs)
            fresh = [
                v for v in (*step.inputs, *step.constants) if v in graph.live and v not in covered
            ]
            heap = sorted({*heap, *fresh}, key=lambda v: graph.position[v])
        ordered = _readers_of_relu(self._with_constants(steps), graph)
        return Frame(
            graph.closed, tuple(ordered), self.explained, graph.outputs, graph.live, graph.reached
        )

    def _with_constants(self, steps: dict[int, Step]) -> list[Step]:
        """The steps in order, with the equations of constants between them."""
        ordered: list[Step] = []
        pending: list[Equation] = []

        def flush() -> None:
            if pending:
                made = [v for eqn in pending for v in eqn.outvars]
                ordered.append(self._step(Native(tuple(pending)), (), made, list(pending)))
                pending.clear()

        for index, eqn in enumerate(self.graph.eqns):
            if not self.graph.is_live(eqn):
                pending.append(eqn)
            if index in steps:
                flush()
                ordered.append(steps[index])
        flush()
        return ordered

    def _step(
        self,
        what: Any,
        inputs: Iterable[Var],
        outputs: Iterable[Var],
        eqns: list[Equation],
        kind: Kind | None = None,
    ) -> Step:
        graph = self.graph
        inputs = tuple(dict.fromkeys(inputs))
        made = {v for eqn in eqns for v in eqn.outvars}
        constants = dict.fromkeys(
            a
            for eqn in eqns
            for a in eqn.invars
            if not is_literal(a) and a not in made and a not in inputs
        )
        weights = tuple(dict.fromkeys(self.names[c] for c in constants if c in self.names))
        outputs = tuple(v for v in outputs if not _compat.is_dropped(v))
        last = eqns[-1]
        if (
            weights
            and kind is not None
            and kind <= (kinds.Linear | kinds.BatchNorm | kinds.Bias | kinds.Normalization)
        ):
            core = what.eqn if isinstance(what, Contraction) else None
            own = [
                self.names[a]
                for a in (core.invars if core else ())
                if not is_literal(a) and a in self.names
            ]
            name = layer_name((own or weights)[0])
        else:
            place = _compat.scope(what.eqn if isinstance(what, Contraction) else last)
            name = "/".join((*place, kind.label if kind else ""))
        return Step(
            what=what,
            inputs=inputs,
            constants=tuple(constants),
            outputs=outputs,
            position=max((graph.position[v] for v in outputs), default=-1),
            kind=kind,
            name=name,
            weights=weights,
            source=_compat.source_line(what.eqn if isinstance(what, Contraction) else last),
            nonnegative=len(inputs) > 0 and all(v in self.nonnegative for v in inputs),
        )

    def _cover(self, var: Var) -> Step:
        """The step that makes `var`."""
        eqn = self.graph.maker[var]
        region = between_reals(self.graph, var)
        if region is not None:
            return self._complex(var, *region)
        if family(eqn.primitive) is Family.CONTROL:
            return self._control(eqn)
        for attempt in (self._held, self._softmax, self._affine, self._pointwise_run):
            step = attempt(var)
            if step is not None:
                return step
        return self._single(var, eqn)

    def _chain_up(self, var: Var, padded: bool = False) -> tuple[list[Equation], Var]:
        """Affine and structural equations that lead to `var` and that nobody else reads."""
        chain: list[Equation] = []
        current = var
        while True:
            eqn = self.graph.maker.get(current)
            links = eqn is not None and current not in self.softmaxes and self._is_link(eqn)
            if eqn is None or not (links or (padded and pads_with_zeros(eqn))):
                return chain, current
            operand = eqn.invars[self.graph.explained_operands(eqn)[0]]
            chain.insert(0, eqn)
            current = operand
            if not self.graph.read_once(current):
                return chain, current

    def _is_link(self, eqn: Equation) -> bool:
        """Whether the equation is affine or only changes the shape of its one explained operand."""
        operands = self.graph.explained_operands(eqn)
        if len(operands) != 1 or len(eqn.outvars) != 1 or is_complex(eqn.invars[operands[0]]):
            return False
        if family(eqn.primitive) is Family.NEUTRAL or eqn.primitive in prim.SHAPE_ONLY:
            return True
        if prim.is_psum(eqn.primitive):  # completes a contraction whose terms lie on many devices
            maker = self.graph.maker.get(eqn.invars[0])
            return maker is not None and family(maker.primitive) is Family.CONTRACTION
        return family(eqn.primitive) is Family.AFFINE and not (
            eqn.primitive is prim.DIV and operands[0] == 1
        )

    def _chain(self, eqns: list[Equation], start: Var, end: Var) -> Chain:
        return Chain(tuple(eqns), start, end, any(e.primitive in SCALING for e in eqns))

    def _affine(self, var: Var) -> Step | None:
        """A contraction, sum or normalisation with the affine equations after it, or such alone."""
        eqn = self.graph.maker[var]
        ends = family(eqn.primitive) is Family.AFFINE or prim.is_psum(eqn.primitive)
        if self._is_link(eqn) and not ends:
            return None  # a trailing reshape belongs to nobody
        chain, start = self._chain_up(var)
        if chain and not self.graph.read_once(start) and self._layer_eqn(start) is not None:
            # Someone reads the layer's output before the chain: the chain stands alone.
            return self._standalone(var, chain, start)
        core = self._layer_eqn(start)
        if core is None:
            return self._standalone(var, chain, start) if chain else None
        if core == "normalization":
            return self._held(var, chain, start)
        if family(core.primitive) is Family.CONTRACTION:
            return self._contraction(var, core, chain, start)
        if chain and not all(is_mean_factor(e) for e in chain):
            return self._standalone(var, chain, start)
        return self._sum(var, core, chain)

    def _layer_eqn(self, var: Var) -> Any:
        """The contraction or sum that makes `var`, or "normalization", or None."""
        eqn = self.graph.maker.get(var)
        if eqn is None:
            return None
        if var in self.normalizations:
            return "normalization"
        operands = self.graph.explained_operands(eqn)
        kind = family(eqn.primitive)
        if kind is Family.CONTRACTION and len(operands) == 1:
            return eqn
        if kind in (Family.SUM, Family.SCATTER_SUM):
            return eqn
        adds = eqn.primitive in prim.ADD or eqn.primitive is prim.SUB
        if adds and len(operands) == 2 and var not in self.dominator:
            return eqn
        return None

    def _contraction(self, var: Var, core: Equation, chain: list[Equation], start: Var) -> Step:
        position = self.graph.explained_operands(core)[0]
        operand = core.invars[position]
        before: list[Equation] = []
        top = operand
        if self.graph.read_once(operand):
            before, top = self._chain_up(operand, padded=True)
            before, top = self._trim_before(before, top)
        features = feature_axes(core, position)
        what = Contraction(
            before=self._chain(before, top, operand),
            eqn=core,
            position=position,
            after=self._chain(chain, start, var),
            features=features,
            feature_scales=features is not None
            and scales_along(self.graph, chain, start, features[0]),
        )
        kind = kinds.Conv if core.primitive is prim.CONV else kinds.Dense
        if kind is kinds.Conv and any(d != 1 for d in core.params["lhs_dilation"]):
            kind = kinds.ConvTranspose
        return self._step(what, (top,), (var,), [*before, core, *chain], kind)

    def _trim_before(self, chain: list[Equation], top: Var) -> tuple[list[Equation], Var]:
        """Keep what belongs to the contraction after it: input scaling, batch norm, padding."""
        made_by = self.graph.maker.get(top)
        if self._layer_eqn(top) is not None and self.graph.read_once(top):
            made_by_layer = made_by is not None and (
                self._layer_eqn(top) == "normalization"
                or family(made_by.primitive) is Family.CONTRACTION
            )
            if made_by_layer:
                return [], chain[-1].outvars[0] if chain else top
        after_activation = made_by is not None and top in self.dominator
        after_sum = made_by is not None and _compat.is_equation(self._layer_eqn(top))
        while chain:
            eqn = chain[0]
            others = (after_activation and is_literal_link(eqn)) or (
                after_sum and is_mean_factor(eqn)
            )
            if (family(eqn.primitive) is Family.AFFINE and not others) or pads_with_zeros(eqn):
                break
            top = eqn.outvars[0]
            chain = chain[1:]
        return chain, top

    def _sum(self, var: Var, core: Equation, chain: list[Equation]) -> Step:
        operands = [core.invars[i] for i in self.graph.explained_operands(core)]
        kind = kinds.AvgPool if core.primitive is prim.POOL_SUM else kinds.Merge
        spatial = core.primitive is prim.REDUCE_SUM and len(core.invars[0].aval.shape) >= 3
        if spatial and set(core.params["axes"]) < set(range(len(core.invars[0].aval.shape))):
            kind = kinds.AvgPool if chain else kinds.Merge
        signs = (1, -1) if core.primitive is prim.SUB else (1,) * len(operands)
        what = Sum((core, *chain), signs, any(may_turn(e) for e in chain))
        return self._step(what, operands, (var,), [core, *chain], kind)

    def _complex(
        self, var: Var, eqns: list[Equation], inputs: list[Var], refused: Equation | None
    ) -> Step:
        """A linear map from real numbers to real numbers, by way of complex ones."""
        if refused is not None:
            raise UnsupportedOperation(
                f"{self._refusal(refused)} Of complex numbers there are linear operations between "
                "real ones, and magnitudes: write others with real and imaginary parts as two "
                "arrays."
            )
        what = Sum(tuple(eqns), None, shifted=any(adds_constant(e, self.graph) for e in eqns))
        return self._step(what, inputs, (var,), eqns, kinds.Merge)

    def _standalone(self, var: Var, chain: list[Equation], start: Var) -> Step | None:
        """Affine equations with no contraction beside them."""
        maker = self.graph.maker.get(start)
        nonlinear = maker is not None and start in self.dominator and not self._is_link(maker)
        if nonlinear and self.graph.read_once(start) and all(is_literal_link(e) for e in chain):
            return None  # the end of a hand-written activation
        affine = [e for e in chain if family(e.primitive) is Family.AFFINE]
        after_sum = _compat.is_equation(self._layer_eqn(start))
        # A chain of shape changes at the top is somebody else's.
        while chain and family(chain[0].primitive) is not Family.AFFINE:
            start = chain[0].outvars[0]
            chain = chain[1:]
        shifts = [e for e in affine if e.primitive in prim.ADD or e.primitive is prim.SUB]
        scales = [e for e in affine if e.primitive in (prim.MUL, prim.DIV)]
        what = Shift(self._chain(chain, start, var))
        if not shifts:
            return self._step(what, (start,), (var,), chain)
        # 1 - z is a function of z, computed by hand; a number added to a sum is its bias.
        if all(is_literal_link(e) for e in affine) and not after_sum:
            function = Pointwise(tuple(chain), False, False)
            moved = any(e.primitive in prim.SHAPE_ONLY for e in chain)
            if not moved and start.aval.shape == var.aval.shape:
                return self._step(function, (start,), (var,), chain, kinds.Activation)
        kind = kinds.BatchNorm if scales else kinds.Bias
        return self._step(what, (start,), (var,), chain, kind)

    def _held(
        self, var: Var, chain: list[Equation] | None = None, start: Var | None = None
    ) -> Step | None:
        product_var = var if start is None else start
        found = self.normalizations.get(product_var)
        if found is None:
            return None
        eqns, outside = self.graph.between(product_var, [found.root])
        assert not outside, "a normalisation has one root"
        everything = [*eqns, *(chain or [])]
        what = Held(tuple(everything), found.product, found.position, found.batch_axis)
        return self._step(what, (found.root,), (var,), everything, kinds.Normalization)

    def _softmax(self, var: Var) -> Step | None:
        root = self.softmaxes.get(var)
        if root is None:
            return None
        eqns, _ = self.graph.between(var, [root])
        divides = self.graph.maker[var].primitive is prim.DIV
        kind = kinds.Softmax if divides else kinds.LogSumExp
        return self._step(Held(tuple(eqns), None, 0), (root,), (var,), eqns, kind)

    def _pointwise_run(self, var: Var) -> Step | None:
        """The longest elementwise function that ends at `var` and is one activation."""
        if var not in self.dominator:
            return None
        root = self.dominator[var]
        best: Var | None = None
        nonlinear = False
        current = var
        while True:
            above = self.dominator.get(current)
            if above is None:
                break
            link = self.graph.maker[current]
            is_affine = self._is_link(link)
            if is_affine and not is_literal_link(link):
                break
            nonlinear = nonlinear or not is_affine
            current = above
            if nonlinear:
                best = current
            if not self._is_interior(current):
                break
        if best is None:
            return None
        root = best
        eqns, _ = self.graph.between(var, [root])
        relu = is_relu(eqns, root)
        kind = kinds.ReLU if relu else kinds.Activation
        what = Pointwise(tuple(eqns), zero_at_zero(eqns, root, var), relu)
        return self._step(what, (root,), (var,), eqns, kind)

    def _is_interior(self, var: Var) -> bool:
        """Whether a run may pass over `var`: only the run itself reads it."""
        if not self.graph.read_once(var):
            return False
        return self._layer_eqn(self._chain_up(var)[1]) is None

    def _single(self, var: Var, eqn: Equation) -> Step:
        graph = self.graph
        operands = graph.explained_operands(eqn)
        inputs = [eqn.invars[i] for i in operands]
        what = family(eqn.primitive)
        product = eqn.primitive in (prim.MUL, prim.DIV) or what is Family.CONTRACTION
        if product and len(operands) == 2:
            kind = kinds.MatMul if what is Family.CONTRACTION else kinds.Product
            gate = self._gate([eqn.invars[i] for i in operands])
            return self._step(Product(eqn, gate), inputs, eqn.outvars, [eqn], kind)
        if eqn.primitive is prim.DIV and operands == [1]:
            what_ = Pointwise((eqn,), False, False)
            return self._step(what_, inputs, eqn.outvars, [eqn], kinds.Activation)
        if what is Family.STRUCTURAL or what is Family.WINNER or what is Family.NEUTRAL:
            pool = kinds.MaxPool if eqn.primitive is prim.POOL_MAX else None
            return self._step(Native((eqn,)), inputs, eqn.outvars, [eqn], pool)
        if what is Family.AFFINE and len(operands) == 1:
            shift = Shift(self._chain([eqn], inputs[0], var))
            return self._step(
                shift, inputs, eqn.outvars, [eqn], None if eqn.primitive in SCALING else kinds.Bias
            )
        raise UnsupportedOperation(self._refusal(eqn))

    def _gate(self, operands: list[Var]) -> int | None:
        ranks = [self._gate_rank(v) for v in operands]
        if len(operands) != 2 or ranks[0] == ranks[1]:
            return None
        return 0 if ranks[0] > ranks[1] else 1

    def _gate_rank(self, var: Var) -> int:
        """How much a value looks like a gate: softmax > sigmoid > another activation > none."""
        for _ in range(64):
            if var in self.softmaxes:
                return 3 if self.graph.maker[var].primitive is prim.DIV else 0
            eqn = self.graph.maker.get(var)
            if eqn is None:
                return 0
            operands = self.graph.explained_operands(eqn)
            if _compat.primitive("logistic") is eqn.primitive:
                return 2
            if var in self.normalizations:
                var = self.normalizations[var].root
                continue
            moves = family(eqn.primitive) in (Family.STRUCTURAL, Family.NEUTRAL, Family.SUM)
            affine = self._is_link(eqn)
            if var in self.dominator and not self._is_link(eqn):
                inner, _ = self.graph.between(var, [self.dominator[var]])
                last = inner[-1].primitive
                return 2 if last is _compat.primitive("logistic") else 1
            if not (moves or affine) or not operands:
                return 0
            var = eqn.invars[operands[0]]
        return 0

    def _refusal(self, eqn: Equation) -> str:
        place = "/".join(_compat.scope(eqn)) or "the function"
        shapes = ", ".join(str(a.aval) for a in eqn.invars)
        return (
            f"no rule carries relevance through `{eqn.primitive}` ({shapes}) in {place}, "
            f"written at {_compat.source_line(eqn)}. Compute it from other operations, or put "
            "jax.lax.stop_gradient around it to make it a constant of the explanation."
        )

    def _control(self, eqn: Equation) -> Step:
        from ._control import bodies  # the bodies are analysed by this module again

        graph = self.graph
        explained = tuple(not is_literal(a) and a in graph.live for a in eqn.invars)
        wanted = tuple(v in graph.live for v in eqn.outvars)
        names = [self.names.get(a, "") if not is_literal(a) else "" for a in eqn.invars]
        signs = [is_nonnegative(a, self.nonnegative) for a in eqn.invars]
        frames = bodies(eqn, explained, wanted, names, signs, analyse, inline, self._refusal)
        inputs = [eqn.invars[i] for i in graph.explained_operands(eqn)]
        return self._step(Body(eqn, frames, explained), inputs, eqn.outvars, [eqn])


def _readers_of_relu(steps: list[Step], graph: Graph) -> list[Step]:
    """Mark layers whose output only relus read: there, negative outputs carry no relevance."""
    readers: dict[Var, list[Step]] = {}
    for step in steps:
        for var in dict.fromkeys((*step.inputs, *step.constants)):
            readers.setdefault(var, []).append(step)
    outvars = {a for a in graph.jaxpr.outvars if not is_literal(a)}

    def only_relus(step: Step) -> bool:
        return all(
            var not in outvars
            and readers.get(var)
            and all(r.kind is kinds.ReLU for r in readers[var])
            for var in step.outputs
        )

    return [
        dataclasses.replace(step, before_relu=True)
        if isinstance(step.what, Contraction) and only_relus(step)
        else step
        for step in steps
    ]
