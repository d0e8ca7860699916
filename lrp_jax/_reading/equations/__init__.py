"""Equations written otherwise: masks, parts, loops and axes that are no matter of layers.

Each file is one identity of functions, from jaxpr to jaxpr.
"""
