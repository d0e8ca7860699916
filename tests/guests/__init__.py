"""The guest house: published models, held against an oracle that knows primitives only.

`python -m tests.guests` examines all of them and writes `docs/guests.md`. A file `families_*.py`
for each package has a tuple `FAMILIES`; packages are imported when a guest is built.
"""
