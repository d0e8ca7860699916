"""Is it a good explanation? All ways to measure that.

Read `correlations` (shared), `fills`, `flipping`, then `maps` (of relevance alone), `faithfulness`
(that ask the model), `stability` and `randomisation`, then `studies` (tables of many methods) and
`quantus` (the adapter for that library).
"""

from . import fills as fills
from .correlations import pearson as pearson
from .correlations import spearman as spearman
from .faithfulness import completeness as completeness
from .faithfulness import faithfulness_correlation as faithfulness_correlation
from .faithfulness import infidelity as infidelity
from .faithfulness import sensitivity_n as sensitivity_n
from .flipping import Curves as Curves
from .flipping import area as area
from .flipping import area_between as area_between
from .flipping import area_of_squares as area_of_squares
from .flipping import interval as interval
from .flipping import pixel_flipping as pixel_flipping
from .maps import complexity as complexity
from .maps import pointing_game as pointing_game
from .maps import relevance_mass_accuracy as relevance_mass_accuracy
from .maps import relevance_rank_accuracy as relevance_rank_accuracy
from .maps import sparseness as sparseness
from .randomisation import Randomisation as Randomisation
from .randomisation import parameter_randomisation as parameter_randomisation
from .stability import max_sensitivity as max_sensitivity
from .stability import random_logit as random_logit
from .studies import Grid as Grid
from .studies import Rank as Rank
from .studies import Table as Table
from .studies import study as study
