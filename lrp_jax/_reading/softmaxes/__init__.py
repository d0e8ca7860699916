"""Sums of exponentials and their logarithms: softmaxes and weighted means, however written.

`exponentials` says what is one; the others are identities of them.
"""
