"""Every output at once, and pairs of inputs."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from .._calls.explained import Explained
from .._calls.hints import no_target
from ..composites import Composite
from .layers import reducer


@no_target
def relevance_matrix(
    apply_fn: Callable[..., Any],
    composite: Any,
    argnums: int = 1,
    *,
    mode: Literal["reverse", "forward"] = "reverse",
    has_aux: bool = False,
) -> Callable[..., jax.Array]:
    """A function from a call of `apply_fn` to the relevance of every output for every input.

    M[j, i] is the relevance of input i when output j is explained. Reverse mode pulls every output
    back; forward mode pushes every input forward through the transposed layers, which is the
    forward-pass formulation of LRP: cheaper where there are fewer inputs than outputs.

    Args:
        apply_fn: the function to explain, with one output array.
        composite: a composite, or one rule for every layer with weights.
        argnums: the explained argument, one array.
        mode: "reverse" or "forward".
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` to an array of shape output + input.

    Raises:
        ValueError: for another mode, several outputs or several inputs, or forward mode of a
            modified gradient, which is not linear.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: x @ w
        >>> print(lrp.relevance_matrix(f, lrp.Zero())(jnp.eye(2), jnp.array([1.0, 3.0])))
        [[1. 0.]
         [0. 3.]]
    """
    if mode not in ("reverse", "forward"):
        raise ValueError(f"mode={mode!r}: it is 'reverse' or 'forward'.")
    explained = Explained(apply_fn, composite, argnums, has_aux)
    if mode == "forward" and explained.composite.gradient:
        raise ValueError("modified gradients are not linear: only mode='reverse' has a meaning.")

    def matrix(*args: Any, **kwargs: Any) -> jax.Array:
        call, leaves = explained.prepare(args, kwargs)
        explained.warn_of(call, leaves)
        shapes = jax.tree.leaves(call.output_shapes)
        if len(shapes) != 1 or len(call.explained) != 1:
            raise ValueError(
                f"a relevance matrix has one output and one input array; here are {len(shapes)} "
                f"outputs and {len(call.explained)} explained inputs."
            )

        def evaluate(composite: Composite, leaves: Any) -> jax.Array:
            (x,) = call.explained_values(leaves)
            output, pullback, _ = call.pulled("C", composite, leaves)
            shape, tree = shapes[0], jax.tree.structure(output)

            def pull(seed: jax.Array) -> jax.Array:
                return pullback(jax.tree.unflatten(tree, [seed]))[0]

            if mode == "reverse":
                basis = jnp.eye(shape.size, dtype=shape.dtype).reshape(shape.size, *shape.shape)
                return jax.vmap(pull)(basis).reshape(*shape.shape, *x.shape)
            push = jax.linear_transpose(pull, shape)
            basis = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
            columns = jax.vmap(lambda e: push(e)[0])(basis)
            return jnp.moveaxis(columns, 0, -1).reshape(*shape.shape, *x.shape)

        return explained.compiled(call, ("matrix", mode), evaluate)(explained.composite, leaves)

    return matrix


def bilrp(
    apply_fn: Callable[..., Any], composite: Any, *, reduce: Any = None
) -> Callable[..., jax.Array]:
    """A function to the relevance of pairs of inputs for the similarity of two embeddings.

    The similarity is phi(x) . phi(y); R[i, j] = sum_k R_k,i(x) R_k,j(y), with R_k the relevance for
    the k-th feature. The pairs sum to the similarity as far as the rules conserve.

    Args:
        apply_fn: `apply_fn(params, x)`, the embedding phi of one input, or of a batch.
        composite: a composite, or one rule for every layer with weights.
        reduce: a function of one relevance array of an input (such as a sum over channels and
            patches), to keep the matrix of pairs small.

    Returns:
        A function of `(params, x, y)` to an array of shape x + y (after `reduce`).

    Raises:
        ValueError: where the embeddings differ in shape.

    Source: Eberle et al. 2020, "Building and interpreting deep similarity models".
    """
    matrix = relevance_matrix(apply_fn, composite)
    keep = reducer(reduce)

    def pairs(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        def features(value: jax.Array) -> jax.Array:
            found = matrix(params, value)
            embedded.append(found.shape[: found.ndim - value.ndim])
            return jax.vmap(lambda r: keep(r, 0))(found.reshape(-1, *value.shape))

        embedded: list[tuple[int, ...]] = []
        of_x, of_y = features(x), features(y)
        if embedded[0] != embedded[1]:
            raise ValueError(
                f"a similarity needs two embeddings of one shape, got {embedded[0]} of x and "
                f"{embedded[1]} of y: are there as many examples in both?"
            )
        return jnp.tensordot(of_x, of_y, axes=(0, 0))

    return pairs
