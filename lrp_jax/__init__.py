"""Layer-wise relevance propagation as a JAX transform."""

from . import _former_paths
from . import composites as composites
from . import targets as targets
from ._layers.step import UnsupportedOperation as UnsupportedOperation
from .composites import CPLRP as CPLRP
from .composites import AttnLRP as AttnLRP
from .composites import Composite as Composite
from .composites import DeepTaylor as DeepTaylor
from .composites import EpsilonAlpha2Beta1 as EpsilonAlpha2Beta1
from .composites import EpsilonAlpha2Beta1Flat as EpsilonAlpha2Beta1Flat
from .composites import EpsilonGammaBox as EpsilonGammaBox
from .composites import EpsilonPlus as EpsilonPlus
from .composites import EpsilonPlusFlat as EpsilonPlusFlat
from .composites import ExcitationBackprop as ExcitationBackprop
from .composites import LRPOverview as LRPOverview
from .datasets import explain_dataset as explain_dataset
from .kinds import Activation as Activation
from .kinds import AvgPool as AvgPool
from .kinds import BatchNorm as BatchNorm
from .kinds import Bias as Bias
from .kinds import Bilinear as Bilinear
from .kinds import Conv as Conv
from .kinds import ConvTranspose as ConvTranspose
from .kinds import Dense as Dense
from .kinds import Linear as Linear
from .kinds import LogSumExp as LogSumExp
from .kinds import MatMul as MatMul
from .kinds import MaxPool as MaxPool
from .kinds import Merge as Merge
from .kinds import Normalization as Normalization
from .kinds import Product as Product
from .kinds import ReLU as ReLU
from .kinds import Softmax as Softmax
from .kinds import depth as depth
from .kinds import first as first
from .kinds import last as last
from .plan import Layer as Layer
from .plan import Plan as Plan
from .prepared import prepare as prepare
from .questions import Ledger as Ledger
from .questions import bilrp as bilrp
from .questions import concept_relevance as concept_relevance
from .questions import concept_scores as concept_scores
from .questions import conservation as conservation
from .questions import layer_relevances as layer_relevances
from .questions import parameter_relevance as parameter_relevance
from .questions import relevance_matrix as relevance_matrix
from .rule import Rule as Rule
from .rule import Term as Term
from .rules import AlphaBeta as AlphaBeta
from .rules import BetaSmooth as BetaSmooth
from .rules import DeconvNet as DeconvNet
from .rules import Epsilon as Epsilon
from .rules import Flat as Flat
from .rules import Gamma as Gamma
from .rules import Gate as Gate
from .rules import GuidedBackprop as GuidedBackprop
from .rules import Identity as Identity
from .rules import Norm as Norm
from .rules import Pass as Pass
from .rules import Relative as Relative
from .rules import Taylor as Taylor
from .rules import Uniform as Uniform
from .rules import WSquare as WSquare
from .rules import ZBox as ZBox
from .rules import Zero as Zero
from .rules import ZPlus as ZPlus
from .transform import lrp_transform as lrp_transform
from .transform import plan as plan
from .transform import relevance as relevance
from .transform import value_and_relevance as value_and_relevance

_former_paths.install()

__version__ = "0.1.0"
