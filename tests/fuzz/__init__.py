"""Random networks whose explanations have to hold every property: `python -m tests.fuzz --help`.

A seed makes a program (`networks.py`): a few operations that may branch, join, loop, share weights
and change the dtype, a composite and a target. `checks.py` says what has to hold of it: the values
of the function, relevance that is finite and the same example by example and operation by
operation, a ledger that adds up, gradient x input where LRP-0 is that, a plan that goes to JSON and
back. `twins.py` rewrites a network by identities: equal functions have equal relevance (`--twins`).
`shrink.py` makes what fails small. What was found so far is kept in `tests/test_fuzz.py`.
"""
