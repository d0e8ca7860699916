"""What else can be asked, each as a pure function of the same arguments as `relevance`.

Read `sites` (where relevance can be read), `layers`, `parameters`, `matrix`, `ledger` (where it got
lost), `roles` (what the axes of layers hold), `streams` (heads, tokens, neurons), `patching`,
`generation` (answers of language models), then `flow` (through chosen units), `concepts`,
`references` (examples of concepts) and `subspaces` (learned concepts), `walks`, `strongest` and
`logic` (through nodes of several layers); `bases` (frequencies, wavelets) and `ensembles`
(uncertainty) stand alone.
"""

from .bases import (
    Basis as Basis,
    components as components,
    cosines as cosines,
    fourier as fourier,
    haar as haar,
    in_basis as in_basis,
    tiles as tiles,
)
from .concepts import (
    ConceptGraph as ConceptGraph,
    concept_graph as concept_graph,
    concept_relevance as concept_relevance,
    reference_relevance as reference_relevance,
)
from .ensembles import Ensemble as Ensemble, ensemble_relevance as ensemble_relevance
from .flow import Subspaces as Subspaces
from .generation import Generation as Generation, explain_generation as explain_generation
from .layers import layer_relevances as layer_relevances
from .ledger import Ledger as Ledger, conservation as conservation
from .logic import Query as Query, query_relevance as query_relevance, visits as visits
from .matrix import bilrp as bilrp, relevance_matrix as relevance_matrix
from .parameters import parameter_relevance as parameter_relevance
from .patching import activation_patching as activation_patching, patching as patching
from .references import (
    References as References,
    concept_scores as concept_scores,
    receptive_window as receptive_window,
    reference_samples as reference_samples,
)
from .streams import (
    head_relevance as head_relevance,
    neuron_relevance as neuron_relevance,
    token_layers as token_layers,
)
from .strongest import Walks as Walks, strongest_walks as strongest_walks
from .subspaces import drsa as drsa, prca as prca
from .walks import group_relevance as group_relevance, walk_relevance as walk_relevance
