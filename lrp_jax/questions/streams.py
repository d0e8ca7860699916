"""Heads, tokens and neurons of every layer: hidden relevance along the axes that a network has.

Which axes hold heads and which tokens is read from the function, see `roles`.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import jax

from .. import kinds
from .._calls.arguments import ArgNums
from .._calls.call import Call, Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._layers.flows import always_passed
from ..composites import Composite
from ..plan import Layer
from .layers import relevances_at
from .roles import Roles
from .sites import Site, path_of, select, zeros_like


@no_target
def head_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Any = kinds.Attention,
    argnums: ArgNums = 1,
    *,
    tokens: bool = False,
    has_aux: bool = False,
) -> Callable[..., dict[str, jax.Array]]:
    """A function from a call of `apply_fn` to the relevance of every head of attention.

        R_h = sum_(t, d) R(z_thd),   z_thd = sum_s p_hts v_shd

    What arrives at what a head makes, before the heads are mixed: all heads of a layer have the
    relevance that it hands to its values and weights. Heads are the axes of z that are no features
    of the values and do not run along the input, so with grouped queries all heads of all groups.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layers: which layers of kind `lrp.Attention`: a path glob or another match.
        argnums: the explained positional arguments.
        tokens: whether to keep the positions that a head writes to, t.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to `{path: relevance}`, in
        order, of shape (heads,), or (tokens, heads). The examples of a batch are in front, and
        before them the turns of a loop over layers.

    Raises:
        ValueError: where there is no attention, or nothing tells which axes are heads.

    Example:
        >>> import jax, jax.numpy as jnp, lrp_jax as lrp
        >>> def attention(w, x):
        ...     h = jnp.einsum("ti,ihd->htd", x, w["heads"])
        ...     p = jax.nn.softmax(jnp.einsum("htd,hsd->hts", h, h))
        ...     return jnp.einsum("hts,hsd->thd", p, h)[-1].sum(0)
        >>> w = {"heads": jnp.stack([jnp.eye(2), 3 * jnp.eye(2)], 1)}
        >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0]])
        >>> list(lrp.head_relevance(attention, lrp.CPLRP())(w, x).values())[0].tolist()
        [1.0, 3.0]

    Source: Kahardipraja et al. 2025, "The Atlas of In-Context Learning".
    """

    def parts_of(roles: Roles, site: Site) -> Any:
        return roles.of_heads(site)

    keep = ("tokens", "units") if tokens else ("units",)
    missing = "heads (it is no mean of values weighted by a softmax)"
    explained = Explained(apply_fn, composite, argnums, has_aux)
    return _asked(explained, lambda call: layers, parts_of, keep, missing)


@no_target
def token_layers(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Any = None,
    argnums: ArgNums = 1,
    *,
    has_aux: bool = False,
) -> Callable[..., dict[str, jax.Array]]:
    """A function from a call of `apply_fn` to the relevance of every token at every layer.

        R_t = sum_d R(h_td)

    It shows where information about a token stops to lie at its own position. By default the
    layers are those of the residual stream: the embedding, and the sums that every way from the
    input to the output passes. The tokens of each have all relevance that there is at its depth.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layers: which layers, any match; None is the residual stream.
        argnums: the explained positional arguments.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to `{path: relevance}`, from
        the input on, of shape (tokens,). The examples of a batch are in front, and before them the
        turns of a loop over layers.

    Raises:
        ValueError: where there is no such layer, or one of `layers` has no axis of tokens.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> def net(w, ids):
        ...     h = w["table"][ids]
        ...     return (h + jnp.roll(h, 1, 0))[-1] @ w["head"]
        >>> w = {"table": jnp.eye(3), "head": jnp.ones((3, 1))}
        >>> for path, r in lrp.token_layers(net, lrp.Zero())(w, jnp.array([0, 1, 2])).items():
        ...     print(path, r)
        table [0. 1. 1.]
        Merge [0. 0. 2.]
    """

    def parts_of(roles: Roles, site: Site) -> Any:
        found = roles.of_output(site)
        return found if any(role == "tokens" for _, role in found) else None

    def chosen(call: Call) -> Any:
        return _residual_stream(call) if layers is None else layers

    explained = Explained(apply_fn, composite, argnums, has_aux)
    return _asked(explained, chosen, parts_of, ("tokens",), "axis of tokens", skips=layers is None)


@no_target
def neuron_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Any = None,
    argnums: ArgNums = 1,
    *,
    tokens: bool = False,
    has_aux: bool = False,
) -> Callable[..., dict[str, jax.Array]]:
    """A function from a call of `apply_fn` to the relevance of every neuron of the MLPs.

        R_u = sum_t R(h_tu)

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layers: which layers, any match. None are neurons as they are usually counted: the
            activations, and the gated products, that layers with weights read.
        argnums: the explained positional arguments.
        tokens: whether to keep the positions t.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to `{path: relevance}` of shape
        (neurons,), or (tokens, neurons). The examples of a batch are in front, and before them the
        turns of a loop over layers.

    Raises:
        ValueError: where there is no such layer, or its axes cannot be told.

    Example:
        >>> import jax, jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: jax.nn.relu(x @ w["up"]) @ w["down"]
        >>> w = {"up": jnp.eye(2), "down": jnp.ones((2, 1))}
        >>> x = jnp.array([[[1.0, 2.0], [3.0, -1.0]]])  # one example of two tokens
        >>> print(lrp.neuron_relevance(f, lrp.Zero())(w, x)["ReLU"])
        [[4. 2.]]
    """

    def parts_of(roles: Roles, site: Site) -> Any:
        found = roles.of_output(site)
        return found if any(role == "units" for _, role in found) else None

    def chosen(call: Call) -> Any:
        return _neurons(call) if layers is None else layers

    keep = ("tokens", "units") if tokens else ("units",)
    explained = Explained(apply_fn, composite, argnums, has_aux)
    return _asked(explained, chosen, parts_of, keep, "axis of neurons")


def _asked(
    explained: Explained,
    layers: Callable[[Call], Any],
    parts_of: Callable[[Roles, Site], Any],
    keep: Sequence[str],
    missing: str,
    skips: bool = False,
) -> Callable[..., dict[str, jax.Array]]:
    """The query that keeps some roles of the axes of layers, and sums over the others."""

    def relevances(*args: Any, target: Any = None, **kwargs: Any) -> dict[str, jax.Array]:
        call, leaves = explained.prepare(args, kwargs)
        roles = Roles(call)
        spec = layers(call)

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Any:
            told = {site: parts_of(roles, site) for site in select(call, spec, begin.form)}
            chosen = {site: found for site, found in told.items() if roles.fit(found)}
            for site in told if not (skips and chosen) else ():
                if site not in chosen:
                    raise ValueError(
                        f"{path_of(call, site)}, with an output of shape "
                        f"{site.step.outputs[0].aval.shape}: it has no {missing}, or an operation "
                        "before it hides what its axes hold. Ask lrp.layer_relevances for it, and "
                        "sum over what you know."
                    )
            found = relevances_at(
                call, begin, composite, leaves, list(chosen),
                lambda output, values: (begin.seed(output, target), zeros_like(values)),
            )  # fmt: skip
            # JAX keeps the order of this one.
            return OrderedDict(
                (path_of(call, site), roles.keep(r, chosen[site] or [], keep))
                for site, r in zip(chosen, found, strict=True)
            )

        return explained.run(call, ("streams", tuple(keep)), evaluate, leaves, target)

    return relevances


def _residual_stream(call: Call) -> Callable[[Layer], bool]:
    passed = always_passed(call.frame, call.resolved.indices)
    stream = kinds.Embedding | kinds.Merge
    indices = {x.index for x in call.resolved.plan.layers if x.kind <= stream} & passed
    if not indices:
        raise ValueError(
            "no embedding and no sum lies on every way from the input to the output: there is no "
            "residual stream. Name layers=."
        )
    return lambda layer: layer.index in indices


def _neurons(call: Call) -> Callable[[Layer], bool]:
    layers = call.resolved.plan.layers
    read = {i for x in layers if x.kind <= kinds.Linear for i in x.parents if i >= 0}
    indices = {i for i in read if layers[i].kind <= kinds.Activation | kinds.Product}
    if not indices:
        raise ValueError(
            "no layer with weights reads an activation or a gated product: there are no neurons of "
            "an MLP. Name layers=."
        )
    return lambda layer: layer.index in indices
