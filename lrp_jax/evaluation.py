"""Is it a good explanation? All ways to measure that, under one name.

- `lrp_jax.flipping`: remove what is relevant and watch the score: `pixel_flipping`, `area`,
  `interval`, ...
- `lrp_jax.fills`: what stands in for removed parts.
- `lrp_jax.metrics`: numbers for faithfulness, complexity and place.
- `lrp_jax.stability`: how explanations change with the input and the class.
- `lrp_jax.randomisation`: `parameter_randomisation`.
- `lrp_jax.study`: `study`, a table of methods x parameters x examples, with `Grid`.
"""

from . import fills as fills
from .flipping import Curves as Curves
from .flipping import area as area
from .flipping import area_between as area_between
from .flipping import area_of_squares as area_of_squares
from .flipping import interval as interval
from .flipping import pixel_flipping as pixel_flipping
from .metrics import completeness as completeness
from .metrics import complexity as complexity
from .metrics import faithfulness_correlation as faithfulness_correlation
from .metrics import infidelity as infidelity
from .metrics import pearson as pearson
from .metrics import pointing_game as pointing_game
from .metrics import relevance_mass_accuracy as relevance_mass_accuracy
from .metrics import relevance_rank_accuracy as relevance_rank_accuracy
from .metrics import sensitivity_n as sensitivity_n
from .metrics import sparseness as sparseness
from .metrics import spearman as spearman
from .randomisation import Randomisation as Randomisation
from .randomisation import parameter_randomisation as parameter_randomisation
from .stability import max_sensitivity as max_sensitivity
from .stability import random_logit as random_logit
from .study import Grid as Grid
from .study import Rank as Rank
from .study import Table as Table
from .study import study as study
