"""Small models of every kind: what properties of all networks are tested on."""

from __future__ import annotations

from . import feedforward, frameworks, plain, recurrent, transformers, vocabulary
from ._model import Apply, Model, Parts, cast

ZOO: dict[str, Model] = {
    model.name: model
    for module in (feedforward, plain, frameworks, recurrent, vocabulary, transformers)
    for model in module.MODELS
}


def models(*tags: str, without: tuple[str, ...] = ()) -> list[Model]:
    """The entries that have all of these tags and none of the others."""
    return [m for m in ZOO.values() if m.tags.issuperset(tags) and not m.tags.intersection(without)]


__all__ = ["ZOO", "Apply", "Model", "Parts", "cast", "models"]
