"""The tokens of an answer, each explained by the tokens before it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.explained import Explained
from .._calls.hints import no_target
from .._layers.arithmetic import divide
from .._propagation.many import over
from .._tables import Shown, Table, counted, shares_of_largest, strongest
from ..composites import Composite
from ..targets import scoring, token, weighting

Spans = Sequence[slice | Sequence[int]]


@partial(
    jax.tree_util.register_dataclass, data_fields=["relevance", "scores"], meta_fields=["prompt"]
)
@dataclass(frozen=True, repr=False)
class Generation(Shown):
    """What made each token of an answer; prints as the strongest tokens of each row.

    Attributes:
        relevance: an array (answer, tokens), with the examples of a batch in front: a row for each
            token of the answer, a column for each token of the prompt and of the answer. Without
            causal attention, tokens that come later have relevance too.
        scores: what each row explains, (answer,): the token's logit, or how far it is above
            that of another token.
        prompt: how many tokens the prompt has; they are the first columns.
    """

    relevance: jax.Array
    scores: jax.Array
    prompt: int

    def example(self, number: int) -> "Generation":
        """That of one example of a batch.

        Args:
            number: which one, from 0.
        """
        return jax.tree.map(lambda array: array[number], self)

    def spans(self, columns: Spans, rows: Spans | None = None) -> jax.Array:
        """Relevance summed over words, sentences, passages.

        Args:
            columns: slices, or lists of positions, among all tokens.
            rows: the same among the tokens of the answer; None is every token on its own.

        Returns:
            An array (rows, columns), with the examples of a batch in front.
        """
        found = jnp.stack([self.relevance[..., _picked(c)].sum(-1) for c in _each(columns)], -1)
        if rows is None:
            return found
        return jnp.stack([found[..., _picked(r), :].sum(-2) for r in _each(rows)], -2)

    def through_answer(self, stabilizer: float = 1e-6) -> jax.Array:
        """The relevance of the prompt, with that of earlier tokens of the answer handed on to it.

            T_t = P_t + sum_(s < t) A_ts T_s / sum(T_s)

        P_t is what row t gives to the prompt, A_ts what it gives to token s of the answer, which
        goes to what made that token, in proportion. The sum of a row stays what it is over the
        tokens before its own. Where the relevances of a row all but cancel, the shares are large.

        Args:
            stabilizer: added to the sums of rows, with their sign.

        Returns:
            An array (answer, prompt), with the examples of a batch in front.
        """
        count = self.relevance.shape[-2]
        own = jnp.tril(self.relevance[..., self.prompt :], -1)
        given = self.relevance[..., : self.prompt]
        sums = given.sum(-1) + own.sum(-1)
        shares = divide(own, sums[..., None, :], stabilizer)
        return jnp.linalg.solve(jnp.eye(count, dtype=shares.dtype) - shares, given)

    def table(self, tokens: Sequence[str] | None = None, top: int = 5) -> str:
        """The strongest tokens for each token of the answer, as text.

        Args:
            tokens: the tokens of prompt and answer, to print instead of positions.
            top: how many of them a row shows.

        Returns:
            One line for each token of the answer.
        """
        return self._table(tokens, top).text()

    def _table(self, tokens: Sequence[str] | None = None, top: int = 5) -> Table:
        relevance, scores = np.asarray(self.relevance), np.asarray(self.scores)
        given = map(str, range(relevance.shape[-1])) if tokens is None else tokens
        names = [token.strip() or repr(token) for token in given]
        if len(names) != relevance.shape[-1]:
            raise ValueError(f"{len(names)} tokens for {relevance.shape[-1]} columns.")
        rows = [
            (
                *([", ".join(map(str, example))] if example else []),
                names[self.prompt + number],
                f"{scores[*example, number]:.3g}",
                strongest(relevance[*example, number], names, top),
            )
            for *example, number in np.ndindex(scores.shape)
        ]
        batch = relevance.ndim > 2
        header = (*["example"] * batch, "token", "score", "from")
        shares = shares_of_largest(scores.reshape(-1, 1).tolist())
        bars = tuple((*[0.0] * (1 + batch), share, 0.0) for (share,) in shares)
        return Table(header, tuple(rows), frozenset({1 + batch}), keep=1 + batch, bars=bars)

    def _title(self) -> str:
        answer, tokens = self.relevance.shape[-2:]
        return (
            f"{counted(answer, 'token')} of an answer, by the tokens before them (the first "
            f"{self.prompt} of {tokens} are the prompt)"
        )


@no_target
def explain_generation(
    apply_fn: Callable[..., Any],
    composite: Any,
    argnums: int = 1,
    *,
    chunk: int | None = None,
    has_aux: bool = False,
) -> Callable[..., Generation]:
    """A function from a prompt and its answer to the relevance of all tokens for each answer token.

    Row t explains the logit of the answer's token t at the position before it, which predicts it.
    There is one forward pass over prompt and answer, and a backward pass for each row.

    Args:
        apply_fn: `apply_fn(params, ids)`, from ids (tokens,) or (batch, tokens) to logits of the
            same axes and one for the vocabulary.
        composite: a composite, or one rule for every layer with weights.
        argnums: the argument that holds the ids.
        chunk: how many rows are computed together, to bound memory (default: as many as leave the
            largest array of a layer at 4 MiB).
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn`, with the answer's ids after the prompt's, and of
        `against=None`, to a `Generation`. `against` makes a row explain how far its token is above
        another one: "runner-up" (the best of all others) or ids of the answer's shape.

    Raises:
        TypeError: for ids that are no integers, and a call without an answer.
        ValueError: for an empty prompt or answer, logits that do not belong to the ids, and ids of
            an answer that the logits do not have.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> def copy(w, ids):  # predicts the token before
        ...     e = w["table"][ids]
        ...     return jnp.concatenate([e[:1], e[:-1]]) @ w["head"]
        >>> w = {"table": jnp.eye(3), "head": 2 * jnp.eye(3)}
        >>> prompt, answer = jnp.array([0, 2, 1]), jnp.array([2, 1])
        >>> print(lrp.explain_generation(copy, lrp.Zero())(w, prompt, answer))
        token  score  from
        -----  -----  -----
        3          2  1 (2)
        4          2  2 (2)
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)
    if chunk is not None:
        scoring.require_positive("chunk", chunk)

    def explain(*args: Any, against: Any = None, **kwargs: Any) -> Generation:
        number = _number(argnums, len(args))
        given = list(args)
        prompt, answer = map(_ids, ("prompt", "answer"), (given[number], given.pop(number + 1)))
        start = _checked(prompt, answer)
        given[number] = jnp.concatenate([prompt, answer], -1)
        call, leaves = explained.prepare(tuple(given), kwargs)
        shape = getattr(call.output_shapes, "shape", None)
        if shape is None or shape[:-1] != given[number].shape:
            raise ValueError(
                f"the logits need the axes {given[number].shape} of the ids, prompt and answer "
                f"together, and one for the vocabulary; the output is {call.output_shapes}."
            )
        require_known("answer", answer, shape[-1])
        if against is not None and not isinstance(against, str):
            against = _ids("against", against)
            if against.shape != answer.shape:
                raise ValueError(f"against has shape {against.shape}, the answer {answer.shape}.")
            require_known("against", against, shape[-1])
        elif against not in (None, "runner-up"):
            raise ValueError(f"against={against!r}: it is None, 'runner-up' or ids.")
        explained.warn_of(call, leaves)
        named = against if isinstance(against, str) else against is not None

        def evaluate(composite: Composite, leaves: Any, answer: Any, against: Any) -> Any:
            output, pullback, _ = call.pulled("C", composite, leaves)
            predicting = output[..., start - 1 : -1, :]
            hot = partial(jax.nn.one_hot, num_classes=output.shape[-1], dtype=output.dtype)
            if named == "runner-up":
                against = jnp.argmax(jnp.where(hot(answer) > 0, -jnp.inf, predicting), -1)

            def row(asked: tuple[jax.Array, jax.Array, jax.Array | None]) -> jax.Array:
                found: jax.Array = pullback(weighting(output, token(*asked)))[0]
                return found

            each = [None if ids is None else jnp.moveaxis(ids, -1, 0) for ids in (answer, against)]
            positions = start - 1 + jnp.arange(answer.shape[-1])
            rows = over(row, (positions, *each), chunk)
            weights = hot(answer) if against is None else hot(answer) - hot(against)
            return jnp.moveaxis(rows, 0, -2), (weights * predicting).sum(-1)

        compiled = explained.compiled(call, ("generation", start, named), evaluate)
        others = None if isinstance(against, str) else against
        relevance, scores = compiled(explained.composite, leaves, answer, others)
        return Generation(relevance, scores, start)

    return explain


def _number(argnums: int, given: int) -> int:
    """The argument that holds the prompt, counted from 0 among all but the answer."""
    if not -given < argnums + 1 < given:
        raise TypeError(
            "the ids of the answer follow those of the prompt: (params, prompt, answer). "
            f"argnums={argnums} is the prompt, and the call has {counted(given, 'argument')}."
        )
    return argnums % (given - 1)


def _ids(name: str, value: Any) -> jax.Array:
    """An array of ids, or what is wrong with it."""
    try:
        ids = value if isinstance(value, jax.Array) else np.asarray(value)
    except (TypeError, ValueError):  # a ragged list
        ids = np.asarray(None)
    if not np.issubdtype(ids.dtype, np.integer):
        shown = type(value).__name__ if ids.dtype == object else ids.dtype
        raise TypeError(
            f"{name} holds ids, integers (tokens,) or (batch, tokens), got {shown}. The arguments "
            "are (params, prompt, answer), and a text is first made ids by its tokenizer."
        )
    return jnp.asarray(ids)


def require_known(name: str, ids: Any, vocabulary: int) -> None:
    """Refuse ids without a logit, where they can be read."""
    if isinstance(ids, jax.core.Tracer):
        return
    values = np.asarray(ids)
    wrong = values[(values < 0) | (values >= vocabulary)]
    if wrong.size:
        raise ValueError(
            f"{name} holds the id {wrong[0]}, and the model has {counted(vocabulary, 'logit')}: "
            f"ids are 0 to {vocabulary - 1}."
        )


def _checked(prompt: jax.Array, answer: jax.Array) -> int:
    """How many tokens the prompt has."""
    fits = prompt.ndim == answer.ndim > 0 and prompt.shape[:-1] == answer.shape[:-1]
    if not fits or not (prompt.size and answer.size):
        raise ValueError(
            "prompt and answer are ids (tokens,) or (batch, tokens), with at least one token each, "
            f"got {prompt.shape} and {answer.shape}."
        )
    return int(prompt.shape[-1])


def _each(spans: Any) -> Spans:
    if isinstance(spans, slice):
        raise TypeError(f"spans are a list, with an entry for each sum: write [{spans}].")
    found: Spans = spans
    return found


def _picked(span: slice | Sequence[int]) -> Any:
    return span if isinstance(span, slice) else np.asarray(span, int)
