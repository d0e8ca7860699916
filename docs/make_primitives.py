"""Write the table of primitives from the table in the code: `python docs/make_primitives.py`."""

from __future__ import annotations

from pathlib import Path

from lrp_jax._analysis import primitives
from lrp_jax._analysis.primitives import Family

FAMILIES = {
    Family.CONTRACTION: (
        "With constants (weights): a layer of kind `Dense` or `Conv`, the composite's choice. With "
        "another explained value: `MatMul`, half to each operand (`Uniform`) or all to the signal "
        "(`Gate`)."
    ),
    Family.AFFINE: (
        "With a constant: part of the layer beside it (bias, batch norm), else `Bias` or "
        "`BatchNorm`. A sum or difference of two explained values is a `Merge`, a product or "
        "quotient a `Product`, or a part of an activation, a normalisation or a softmax."
    ),
    Family.NEUTRAL: "Relevance stays where it is.",
    Family.STRUCTURAL: (
        "Relevance goes back to where each number came from; of a largest or smallest one, to the "
        "winner (equal winners share). `reduce_window_max` is the layer kind `MaxPool`."
    ),
    Family.SUM: "`Merge` or `AvgPool`: in proportion to what was added (`Norm`).",
    Family.SCATTER_SUM: "`Merge`: in proportion to what was added (`Norm`).",
    Family.PRODUCT: (
        "`Product`: in equal parts to its factors (`Uniform`); of a cumulative one, at every place "
        "to the factors so far."
    ),
    Family.LOGSUMEXP: "`LogSumExp`, as a soft maximum that is written out (`Taylor`).",
    Family.SOLVE: (
        "Of a right-hand side, with a constant matrix: a linear map, one `Merge` (`Norm`). Of an "
        "explained matrix: refused."
    ),
    Family.COMPLEX: (
        "Relevance is real: from real numbers by linear operations on complex ones to real numbers "
        "is one `Merge`, in proportion to the contributions of that linear map (`Norm`); so is a "
        "magnitude, `abs`, at its end."
    ),
    Family.ELEMENTWISE: (
        "`Activation` (`ReLU` where it is one): relevance passes unchanged. Of two explained "
        "values that are not functions of one another's root: refused."
    ),
    Family.WINNER: "Of two explained values the winner takes all; with a constant, `Activation`.",
    Family.CONTROL: "The body is entered and its layers are layers of the plan.",
    Family.DETACH: "A constant of the explanation: no relevance.",
}

ENTERED = """jit closed_call custom_jvp_call custom_vjp_call custom_vmap_call shard_map"""

CONSTANT = {
    "Comparisons and logic": """and or not xor eq ne lt le gt ge eq_to lt_to le_to reduce_and
        reduce_or reduce_xor""",
    "Integers and bits": """shift_left shift_right_arithmetic shift_right_logical
        population_count clz bitcast_convert_type""",
    "Made from nothing": "iota axis_index after_all create_token empty2",
    "Random numbers": """random_bits random_fold_in random_seed random_split
        rng_bit_generator rng_uniform threefry2x32""",
}

REFUSED = {
    "Loops without a reverse pass": (
        "while",
        "a counter that runs to a number of the code; `jax.lax.scan`, or `jax.lax.fori_loop` with "
        "static bounds",
    ),
    "Products over segments": (
        "scatter_mul",
        "products over an axis, or written out",
    ),
    "Decompositions and solvers": (
        "cholesky eig eigh hessenberg householder_product lu qr schur svd tridiagonal",
        "`jax.lax.stop_gradient` around the decomposition, which makes it a constant",
    ),
    "Special functions of several arguments, distributions with parameters": (
        """random_gamma igamma igammac igamma_grad_a polygamma zeta regularized_incomplete_beta""",
        "`jax.lax.stop_gradient`",
    ),
    "Reductions with a function of your own that is no sum, product, maximum or minimum": (
        "reduce reduce_window select_and_scatter select_and_scatter_add",
        "`jnp.sum`, `jnp.max`, `jax.lax.scan`",
    ),
    "Inside of `shard_map`": (
        "pmax pmin ragged_all_to_all xla_pmap",
        "`psum`, `all_gather`, or `shard_map` around the explanation",
    ),
    "References and other internals": (
        "get swap call custom_lin",
        "functions without mutable references",
    ),
}


def refused() -> set[str]:
    """The names of all primitives that are refused between input and output."""
    return {name for names, _ in REFUSED.values() for name in names.split()}


def families() -> dict[Family, list[str]]:
    """The primitives of each family in the code, without those that are refused all the same."""
    return {
        family: sorted(set(names.split()) - refused())
        for family, names in primitives._NAMES.items()
        if family is not Family.COMPARISON
    }


def ruled() -> set[str]:
    """The names of all primitives that relevance passes."""
    passed = {name for names in families().values() for name in names} | {"remat"}
    return passed | set(ENTERED.split())


def listed() -> set[str]:
    """The names of all primitives on the page."""
    return ruled() | refused() | {name for names in CONSTANT.values() for name in names.split()}


def code(names: list[str]) -> str:
    """Names as a list in Markdown."""
    return ", ".join(f"`{name}`" for name in names)


def page() -> str:
    """The page as Markdown."""
    rules = [
        f"| {family.value} | {FAMILIES[family]} | {code(names)} |"
        for family, names in families().items()
    ]
    constants = [f"| {what} | {code(sorted(n.split()))} |" for what, n in CONSTANT.items()]
    refusals = [f"| {w} | {code(sorted(n.split()))} | {r} |" for w, (n, r) in REFUSED.items()]
    return "\n".join(
        [
            "# Primitives",
            "",
            "A JAX function is made of primitives. This page lists every one that JAX can put "
            "between the",
            "input and the output of a function, and what relevance does there. It is made from "
            "the table in",
            "the code, and a test compares the two and looks for primitives that are missing. "
            "What a family",
            "means for the layers of a plan is told in [How it works](how-it-works.md).",
            "",
            "## With a rule",
            "",
            "| family | relevance | primitives |",
            "|---|---|---|",
            *rules,
            "| calls | Entered: a call is not an operation, unless a composite names it "
            "(`lrp.call`): then it is one layer of kind `Call`. | "
            f"{code(sorted(ENTERED.split()))} |",
            "",
            "## Never between input and output",
            "",
            "Their results are no differentiable function of the input: they are constants of the "
            "explanation.",
            "Integers that a cast makes of explained numbers, and that are cast back, are numbers "
            "on the way: for",
            "them products, sums and moves have the rules above, and bit operations are refused.",
            "",
            "| what | primitives |",
            "|---|---|",
            *constants,
            "",
            "## Refused",
            "",
            "On a path from input to output these raise `lrp_jax.UnsupportedOperation` when the "
            "plan is made,",
            "with the name, the line and the layer. Constants may use all of them.",
            "",
            "| what | primitives | use instead |",
            "|---|---|---|",
            *refusals,
            "",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_name("primitives.md").write_text(page())
