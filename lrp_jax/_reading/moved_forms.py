"""What is moved on the way, before layers are named: parts of layers, and products in pieces."""

from collections.abc import Mapping, Sequence
from typing import Any

from .._analysis.compat import Var
from .._analysis.graph import Graph
from .._analysis.monomials import Monomials
from .._analysis.places import CUTS
from .._layers.step import Found
from .equations.cut_first import cut_first
from .products.cut_contractions import cut_contractions
from .products.factored_sums import factored
from .products.gathered import gathered
from .products.moved_products import moved_products, parts_of_matrix_products
from .products.repetitions import repetitions
from .rewriting import rewritten
from .softmaxes.log_odds import log_odds
from .softmaxes.log_shares import logarithms_of_picked
from .softmaxes.moved_softmaxes import moved_softmaxes
from .softmaxes.running_sums import running_sums
from .softmaxes.segments import divided_segments
from .softmaxes.sums_of_two import sums_of_two
from .softmaxes.undone_logarithms import undone_logarithms
from .softmaxes.wholes import wholes


def with_moves(
    graph: Graph,
    found: Mapping[Var, Found],
    monomials: Monomials,
    calls: Sequence[str],
) -> Any | None:
    """The same function with norms and softmaxes of which only parts are written (`wholes`), and
    products that are moved on the way; None where there are none.

    Args:
        graph, found, calls: see `normal_form`.
        monomials: the products of the graph.
    """
    roots = {layer.root for layer in found.values()}
    written = gathered(graph, monomials, roots) or {
        **log_odds(graph, found),
        **undone_logarithms(graph, found),
        **logarithms_of_picked(graph),
        **cut_contractions(graph),
        **cut_first(graph),
        **factored(graph, monomials),
        **repetitions(graph),
        **divided_segments(graph, monomials),
        **running_sums(graph, monomials),
        **sums_of_two(graph, monomials.same, monomials.dominator),
        **moved_softmaxes(graph, monomials.same),
        **parts_of_matrix_products(graph),
    }
    if not written:
        written.update(moved_products(graph, monomials))
        if any(e.primitive in CUTS and graph.is_live(e) for e in graph.eqns):
            written.update(wholes(graph, monomials.same, found))
    twice = {
        v: first
        for v, first in monomials.same.items()
        if first is not v and v in graph.live and graph.maker[v].primitive in CUTS
    }
    return rewritten(graph, written, twice, calls) if written or twice else None
