"""Modules under the names that they had before the package had folders."""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ._elsewhere import attribute_of

FORMER = {
    "lrp_jax.colormaps": "lrp_jax.plot.colormaps",
    "lrp_jax.concepts": "lrp_jax.questions",
    "lrp_jax.fills": "lrp_jax.evaluation.fills",
    "lrp_jax.flipping": "lrp_jax.evaluation.flipping",
    "lrp_jax.ledger": "lrp_jax.questions.ledger",
    "lrp_jax.metrics": "lrp_jax.evaluation",
    "lrp_jax.quantus": "lrp_jax.evaluation.quantus",
    "lrp_jax.queries": "lrp_jax.questions",
    "lrp_jax.randomisation": "lrp_jax.evaluation.randomisation",
    "lrp_jax.references": "lrp_jax.questions.references",
    "lrp_jax.stability": "lrp_jax.evaluation.stability",
    "lrp_jax.study": "lrp_jax.evaluation.studies",
}


class _Finder(MetaPathFinder, Loader):
    """Imports a former name as the module itself, the first time it is asked for."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in FORMER else None

    def exec_module(self, module: ModuleType) -> None:
        # The import system takes what lies here at the end, so nothing is made twice.
        sys.modules[module.__name__] = importlib.import_module(FORMER[module.__name__])


def _attribute(name: str) -> Any:
    """`lrp_jax.concepts` without an import of it, too."""
    if f"{__package__}.{name}" not in FORMER:
        return attribute_of(str(__package__))(name)
    return importlib.import_module(f"{__package__}.{name}")


def install() -> None:
    """Make the former names importable; a second time changes nothing."""
    if not any(type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
    vars(sys.modules[__name__.rpartition(".")[0]])["__getattr__"] = _attribute
