"""All guests, by name: one file for each package."""

from __future__ import annotations

from . import (
    families_collections,
    families_equimo,
    families_equinox,
    families_flax,
    families_graphs,
    families_haiku,
    families_ion,
    families_keras,
    families_operators,
    families_probability,
    families_shaped,
    families_states,
    families_transformers,
)
from .guest import Guest

GUESTS: dict[str, Guest] = {
    guest.name: guest
    for module in (
        families_flax,
        families_equinox,
        families_haiku,
        families_equimo,
        families_graphs,
        families_ion,
        families_states,
        families_collections,
        families_operators,
        families_probability,
        families_shaped,
        families_transformers,
        families_keras,
    )
    for guest in module.FAMILIES
}
