"""From layers with rules to a function whose vjp is the explanation.

Read `loop` (the one loop over layers), `forms` (relevance or multiplier, decided before any value
is known), `lowerings` and `forward` (operations in the form that suits the platform).
"""
