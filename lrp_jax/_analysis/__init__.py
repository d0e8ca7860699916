"""From a function to a flat graph of equations, and what is known of it from shapes alone.

Read `trace` (one jaxpr), `primitives` (what each operation does to numbers), `graph` (who makes and
who reads what), `facts` and `signs`. Only `compat` looks at the version of JAX.
"""
