"""Pictures of relevance, worth printing, with zero always in the middle of the colours.

What draws needs `matplotlib` (an extra), takes an `ax` and returns it; `rgb` and text in HTML and
terminals need NumPy alone. Read `colormaps`, `tools`, `heatmaps`, then any other.
"""

from . import colormaps as colormaps
from .charts import curves as curves
from .charts import ranking as ranking
from .charts import surface as surface
from .charts import time_series as time_series
from .graphs import concept_graph as concept_graph
from .graphs import ledger as ledger
from .graphs import plan as plan
from .heatmaps import gallery as gallery
from .heatmaps import grid as grid
from .heatmaps import heatmap as heatmap
from .heatmaps import overlay as overlay
from .heatmaps import rgb as rgb
from .tokens import text as text
from .tokens import text_html as text_html
from .tokens import text_terminal as text_terminal
from .tools import bound as bound
from .tools import colormap as colormap
