"""Is it a good explanation? All ways to measure that.

Read `correlations` (shared), `fills`, `flipping`, then `maps` (of relevance alone), `faithfulness`
(that ask the model), `stability` and `randomisation`, then `studies` (tables of many methods),
`language` (prompts of known truth), `tuning` (numbers of composites) and `quantus` (the adapter for
that library).
"""

from . import fills as fills, language as language
from .correlations import pearson as pearson, spearman as spearman
from .faithfulness import (
    completeness as completeness,
    faithfulness_correlation as faithfulness_correlation,
    infidelity as infidelity,
    sensitivity_n as sensitivity_n,
)
from .flipping import (
    Curves as Curves,
    area as area,
    area_between as area_between,
    area_of_squares as area_of_squares,
    interval as interval,
    pixel_flipping as pixel_flipping,
)
from .maps import (
    complexity as complexity,
    pointing_game as pointing_game,
    relevance_mass_accuracy as relevance_mass_accuracy,
    relevance_rank_accuracy as relevance_rank_accuracy,
    sparseness as sparseness,
)
from .randomisation import (
    Randomisation as Randomisation,
    parameter_randomisation as parameter_randomisation,
)
from .stability import max_sensitivity as max_sensitivity, random_logit as random_logit
from .studies import Grid as Grid, Rank as Rank, Table as Table, study as study
from .tuning import Tuned as Tuned, tune as tune
