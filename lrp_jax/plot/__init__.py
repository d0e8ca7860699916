"""Pictures of relevance, worth printing, with zero always in the middle of the colours.

What draws needs `matplotlib` (an extra), takes an `ax` and returns it; `rgb`, `page` and text in
HTML and terminals need NumPy alone. Read `colormaps`, `tools`, `heatmaps`, then any other.
"""

from . import colormaps as colormaps, sections as sections
from .charts import (
    curves as curves,
    ranking as ranking,
    surface as surface,
    time_series as time_series,
)
from .graphs import concept_graph as concept_graph, ledger as ledger, plan as plan
from .heatmaps import (
    gallery as gallery,
    grid as grid,
    heatmap as heatmap,
    overlay as overlay,
    rgb as rgb,
)
from .pages import Page as Page, Section as Section, page as page
from .pieces import clean as clean, words as words
from .streams import (
    heads as heads,
    matrix as matrix,
    neurons as neurons,
    token_layers as token_layers,
)
from .tokens import (
    text as text,
    text_html as text_html,
    text_latex as text_latex,
    text_terminal as text_terminal,
)
from .tools import bound as bound, colormap as colormap
from .uncertainty import uncertainty as uncertainty
from .walks import walks as walks
