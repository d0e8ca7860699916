"""What a layer is: one file for each family, from how it is recognised to its backward pass.

`step` is the protocol that all families share. `linear`, `chains` and `arithmetic` are what several
families stand on.
"""
