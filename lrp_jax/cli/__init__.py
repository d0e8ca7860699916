"""The command line `python -m lrp_jax plan | explain | evaluate | doctor`.

Read `files` (what is read and written, and how safely), then `commands`; `doctor` looks at the
installation.
"""

from .commands import composite_from as composite_from, main as main
from .files import InputError as InputError, read_arrays as read_arrays, tree as tree
