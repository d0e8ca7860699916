"""From a graph of equations to layers: written in one form, then read.

`reader` covers a graph with layers by asking every family (`_layers`). Before that, equations are
written otherwise (`equations`), and products and sums as the layers that they are (`softmaxes`,
`products`), in the order of `moved_forms` and `normal_form`. A user's own values stay as they are.
"""
