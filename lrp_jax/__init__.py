"""Layer-wise relevance propagation as a JAX transform."""

from . import _former_paths, composites as composites, targets as targets
from ._layers.step import UnsupportedOperation as UnsupportedOperation
from .composites import (
    CPLRP as CPLRP,
    AttnLRP as AttnLRP,
    Composite as Composite,
    DeepTaylor as DeepTaylor,
    EpsilonAlpha2Beta1 as EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat as EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox as EpsilonGammaBox,
    EpsilonPlus as EpsilonPlus,
    EpsilonPlusFlat as EpsilonPlusFlat,
    ExcitationBackprop as ExcitationBackprop,
    LRPOverview as LRPOverview,
)
from .datasets import explain_dataset as explain_dataset
from .kinds import (
    Activation as Activation,
    Attention as Attention,
    AvgPool as AvgPool,
    BatchNorm as BatchNorm,
    Bias as Bias,
    Bilinear as Bilinear,
    Call as Call,
    Conv as Conv,
    ConvTranspose as ConvTranspose,
    Dense as Dense,
    Embedding as Embedding,
    Linear as Linear,
    LogSumExp as LogSumExp,
    MatMul as MatMul,
    MaxPool as MaxPool,
    Merge as Merge,
    Normalization as Normalization,
    Product as Product,
    ReLU as ReLU,
    Softmax as Softmax,
    call as call,
    depth as depth,
    first as first,
    last as last,
)
from .plan import Layer as Layer, Plan as Plan
from .prepared import prepare as prepare
from .questions import (
    Generation as Generation,
    Ledger as Ledger,
    activation_patching as activation_patching,
    bilrp as bilrp,
    concept_relevance as concept_relevance,
    concept_scores as concept_scores,
    conservation as conservation,
    explain_generation as explain_generation,
    group_relevance as group_relevance,
    head_relevance as head_relevance,
    layer_relevances as layer_relevances,
    neuron_relevance as neuron_relevance,
    parameter_relevance as parameter_relevance,
    patching as patching,
    query_relevance as query_relevance,
    relevance_matrix as relevance_matrix,
    strongest_walks as strongest_walks,
    token_layers as token_layers,
    walk_relevance as walk_relevance,
)
from .rules import (
    AlphaBeta as AlphaBeta,
    BetaSmooth as BetaSmooth,
    DeconvNet as DeconvNet,
    Epsilon as Epsilon,
    Flat as Flat,
    Gamma as Gamma,
    Gate as Gate,
    GuidedBackprop as GuidedBackprop,
    Hold as Hold,
    Identity as Identity,
    Norm as Norm,
    Pass as Pass,
    Relative as Relative,
    Taylor as Taylor,
    Uniform as Uniform,
    Weighted as Weighted,
    WSquare as WSquare,
    ZBox as ZBox,
    Zero as Zero,
    ZPlus as ZPlus,
)
from .rules.base import Rule as Rule, Term as Term
from .transform import (
    as_layer as as_layer,
    lrp_transform as lrp_transform,
    plan as plan,
    relevance as relevance,
    value_and_relevance as value_and_relevance,
)

_former_paths.install()

__version__ = "0.2.0"
