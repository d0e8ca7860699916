"""The command line: `python -m lrp_jax plan | explain | evaluate | doctor`.

It reads files, calls the library and writes files; everything it can do is a few lines of Python.
The model is a function that you name, and its module is imported: that is your code.
"""

import argparse
import ast
import contextlib
import difflib
import importlib
import inspect
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import baselines, composites, evaluation, plot, rules
from .._tables import counted
from ..transform import plan, value_and_relevance
from .doctor import report
from .files import PIXELS, Folder, InputError, inputs, optional, read_arrays, said, tree

COMPOSITES = (
    "AttnLRP", "CPLRP", "DeepTaylor", "EpsilonAlpha2Beta1", "EpsilonAlpha2Beta1Flat",
    "EpsilonGammaBox", "EpsilonPlus", "EpsilonPlusFlat", "ExcitationBackprop", "LRPOverview",
    "MambaLRP", "RelP", "beta_smooth", "deconvnet", "guided_backprop",
)  # fmt: skip
SHOWN = 12
"""How many names of parameters are shown."""
SIDE = 256
"""Heatmaps of fewer pixels are enlarged to about this many, each pixel to a square."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words of the command; by default those of the process.

    Returns:
        The exit status: 0.

    Raises:
        SystemExit: with status 2 and a message, for arguments or files that cannot be used.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    told: set[str] = set()

    def tell(message: Warning | str, *place: Any, **more: Any) -> None:
        if str(message) not in told:
            told.add(str(message))
            print(f"{parser.prog}: warning: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = tell
            options.command(options)
    except InputError as error:
        if options.traceback:
            raise
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    return 0


def _check_options(options: Any) -> None:
    """What the parser cannot check."""
    height, width = options.size or (1, 1)
    if min(height, width) < 1 or height * width > PIXELS:
        raise InputError(f"--size is a height and a width in pixels, got {height} {width}.")
    if not all(map(math.isfinite, options.mean)):
        raise InputError("--mean holds finite numbers.")
    if not all(math.isfinite(value) and value > 0 for value in options.std):
        raise InputError("--std holds positive numbers.")
    if not options.limit > 0:
        raise InputError(f"--limit is a positive number of GiB, got {options.limit}.")
    for name in ("batch", "patch", "steps"):
        if getattr(options, name, 1) < 1:
            raise InputError(f"--{name} is at least 1, got {getattr(options, name)}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lrp_jax",
        description="Layer-wise relevance propagation for a JAX model, from the command line.",
        epilog="A first look at a model:  python -m lrp_jax plan net:apply x.npy "
        "--checkpoint net.npz --composite EpsilonPlus",
    )
    commands = parser.add_subparsers(required=True, metavar="plan | explain | evaluate | doctor")

    def command(name: str, run: Callable[[Any], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.RawTextHelpFormatter
        )
        added.set_defaults(command=run)
        added.add_argument(
            "--traceback", action="store_true", help="show where in the code a mistake was found"
        )
        return added

    def of_a_model(name: str, run: Callable[[Any], None], text: str) -> argparse.ArgumentParser:
        added = command(name, run, text)
        added.add_argument(
            "model",
            metavar="module:function",
            help="function(params, x) -> outputs (batch, classes), found in an importable module\n"
            "(the current folder is searched first). Without --checkpoint it is called as\n"
            "function() and returns the pair (apply_fn, params): load anything there.",
        )
        added.add_argument(
            "inputs",
            nargs="+",
            type=Path,
            metavar="input",
            help="a .npy array with the batch in front, a .npz file with an array x, or images\n"
            "(.png, .jpg) of one size",
        )
        added.add_argument(
            "--checkpoint",
            type=Path,
            help="parameters: a .npz or .safetensors file whose names are the tree paths, with /\n"
            'or . between the keys ("params/Conv_0/kernel")',
        )
        added.add_argument(
            "--composite",
            action="append",
            metavar="RULES",
            help="a composite or rule with numbers, such as EpsilonPlus,\n"
            '"EpsilonGammaBox(low=-3, high=3)" or "AttnLRP(linear=Gamma(0.05))"\n'
            "(default: EpsilonPlus" + ("; may be repeated)" if name == "evaluate" else ")"),
        )
        added.add_argument(
            "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="resize images to this"
        )
        added.add_argument(
            "--mean",
            type=float,
            nargs="+",
            default=[0.0],
            help="subtracted from images, which have values from 0 to 1: one for each channel",
        )
        added.add_argument(
            "--std", type=float, nargs="+", default=[1.0], help="divides images after that"
        )
        added.add_argument(
            "--limit",
            type=float,
            default=4.0,
            metavar="GIB",
            help="refuse files that unpack to more than this many GiB (default: 4)",
        )
        return added

    planned = of_a_model("plan", _plan, "Print which layer gets which rule, and why.")
    planned.add_argument("--json", action="store_true", help="print JSON instead of a table")
    explained = of_a_model(
        "explain", _explain, "Write relevance.npy and a heatmap for each image-like example."
    )
    evaluated = of_a_model(
        "evaluate",
        _evaluate,
        "Print how fast the explained output falls when the most relevant parts are removed\n"
        "first (morf, low is good) or last (lerf, high is good), beside simple baselines.",
    )
    command(
        "doctor",
        _doctor,
        "Print versions, devices and what is installed, and try some known numbers.",
    )
    for added in (explained, evaluated):
        added.add_argument(
            "--target",
            type=int,
            nargs="+",
            metavar="CLASS",
            help="the class to explain, one for all or one for each example (default: the largest)",
        )
        added.add_argument("--batch", type=int, default=16, help="examples at a time (default: 16)")
    explained.add_argument("--out", type=Path, required=True, help="the folder to write into")
    evaluated.add_argument("--patch", type=int, default=1, help="side of a patch (default: 1)")
    evaluated.add_argument("--steps", type=int, default=20, help="steps of the curve (default: 20)")
    return parser


def _doctor(options: Any) -> None:
    try:
        for line in report():
            print(line)
    except ArithmeticError as error:
        raise InputError(f"the self-test failed: {error}") from error


def _plan(options: Any) -> None:
    apply_fn, params, _, x = _loaded(options)
    with _model_runs(options, params, x):
        found = plan(apply_fn, _one_composite(options))(params, x[:1])
    print(found.to_json() if options.json else found)


def _explain(options: Any) -> None:
    apply_fn, params, names, x = _loaded(options)
    explain = value_and_relevance(apply_fn, _one_composite(options))
    folder = Folder(options.out)
    outputs, relevances = [], []
    with _model_runs(options, params, x):
        for part, target in _batches(x, options):
            output, relevance = explain(params, part, target=target)
            outputs.append(np.asarray(output))
            relevances.append(np.asarray(relevance))
    output, relevance = np.concatenate(outputs), np.concatenate(relevances)
    with folder.file("relevance.npy") as partial, open(partial, "wb") as file:
        np.save(file, relevance)
    drawable = relevance.ndim == 3 or (relevance.ndim == 4 and relevance.shape[-1] in (1, 3))
    if drawable:
        image = optional("matplotlib.image", "matplotlib", "heatmaps (relevance.npy is written)")
        for name, one in zip(names, relevance, strict=True):
            with folder.file(f"{name}.png") as partial:
                colours = plot.rgb(one)
                times = max(SIDE // max(colours.shape[:2]), 1)
                enlarged = colours.repeat(times, 0).repeat(times, 1)
                image.imsave(partial, enlarged, format="png")
    for name, scores, one in zip(names, output, relevance, strict=True):
        result = (
            f"largest output {scores.argmax(-1).tolist()}"
            if scores.ndim
            else f"output {scores:.6g}"
        )
        print(f"{name}  {result}  sum of relevance {one.sum():.6g}")
    pictures = f" and {counted(len(names), 'heatmap')}" if drawable else ""
    print(f"written: relevance.npy{pictures} in {options.out}", file=sys.stderr)


def _evaluate(options: Any) -> None:
    apply_fn, params, _, x = _loaded(options)
    methods: dict[str, Any] = {
        text: value_and_relevance(apply_fn, composite)
        for text, composite in _composites(options).items()
    }
    methods |= {
        "gradient x input": baselines.input_x_gradient(apply_fn),
        "random": baselines.random(apply_fn, key=jax.random.key(0)),
    }
    orders = ("morf", "lerf")
    how = {"patch": options.patch, "steps": options.steps}
    flip = {order: evaluation.pixel_flipping(apply_fn, order=order, **how) for order in orders}
    width = max(map(len, methods))
    print("  ".join(["method".ljust(width), *(f"{order:>10}" for order in orders)]))
    for name, method in methods.items():
        areas: dict[str, list[Any]] = {order: [] for order in orders}
        with _model_runs(options, params, x):
            for part, target in _batches(x, options):
                found = method(params, part, target=target)
                relevance = found[1] if isinstance(found, tuple) else found
                for order in orders:
                    curve = flip[order](params, part, relevance=relevance, target=target)
                    areas[order].append(np.asarray(evaluation.area(curve)))
        means = [np.concatenate(areas[order]).mean() for order in orders]
        print("  ".join([name.ljust(width), *(f"{mean:10.4g}" for mean in means)]))
    print(
        "mean output while the most (morf: low is good) or least (lerf: high) relevant is removed"
    )


def _batches(x: np.ndarray, options: Any) -> Iterator[tuple[Any, Any]]:
    targets = options.target
    if targets is not None and len(targets) not in (1, len(x)):
        raise InputError(f"--target has {len(targets)} classes for {len(x)} examples: one or all.")
    each = None if targets is None else np.broadcast_to(np.asarray(targets), (len(x),))
    for start in range(0, len(x), options.batch):
        part = slice(start, start + options.batch)
        yield jnp.asarray(x[part]), None if each is None else jnp.asarray(each[part])


def _loaded(options: Any) -> tuple[Callable[..., Any], Any, list[str], np.ndarray]:
    """The function, its parameters, a name for each example, and the batch."""
    _check_options(options)
    return *_model(options), *inputs(options)


def _model(options: Any) -> tuple[Callable[..., Any], Any]:
    module, _, name = options.model.partition(":")
    if not module or not name:
        raise InputError(f"the model is named module:function, got {options.model!r}.")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module.split(".")[0], module):
            raise InputError(f"module {module!r} cannot be imported: {said(error)}") from error
        plain = module.removesuffix(".py")
        meant = f" Modules are named without .py: {plain}:{name}." if plain != module else ""
        raise InputError(
            f"there is no module {module!r} on the path or in this folder.{meant}"
        ) from error
    except (Exception, SystemExit) as error:
        raise InputError(f"module {module!r} cannot be imported: {said(error)}") from error
    offered = [n for n, value in vars(found).items() if callable(value)]
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise InputError(f"module {module!r} has no function {name!r}{_near(name, offered)}")
    if options.checkpoint is not None:
        arrays = read_arrays(options.checkpoint, options.limit)
        for path, array in arrays.items():
            if jnp.issubdtype(array.dtype, jnp.inexact) and np.isnan(array).any():
                raise InputError(f"{options.checkpoint} has NaN in {path or 'its array'}.")
        return found, tree(arrays)
    try:
        made = None if _needs_arguments(found) else found()
    except (Exception, SystemExit) as error:
        raise InputError(f"{name}() failed: {said(error)}") from error
    if not (isinstance(made, tuple) and len(made) == 2 and callable(made[0])):
        raise InputError(
            f"{name} needs parameters: give --checkpoint, or a function without arguments that "
            "returns the pair (apply_fn, params)."
        )
    return made


@contextlib.contextmanager
def _model_runs(options: Any, params: Any, x: np.ndarray) -> Iterator[None]:
    """What goes wrong inside is the model's, its parameters' or the input's doing: say which."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if _is_ours(error):
            raise InputError(f"{options.model} cannot be explained: {error}") from error
        paths = jax.tree_util.tree_flatten_with_path(params)[0]
        held = [
            f"{jax.tree_util.keystr(path, simple=True, separator='/')} {np.shape(leaf)}"
            for path, leaf in paths
        ]
        shown = ", ".join(held[:SHOWN]) + (f", ... ({len(held)} in all)" if held[SHOWN:] else "")
        raise InputError(
            f"{options.model} cannot be explained: {said(error)}\n"
            f"the input has the shape {x.shape}; the parameters are {shown or 'none'}."
        ) from error


def _is_ours(error: Exception) -> bool:
    """Whether this library raised it, and not the model: then it says all that there is to say."""
    place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return Path(__file__).parent.parent in place.parents


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else "."


def _needs_arguments(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is p.empty and p.kind not in optional for p in parameters)


def composite_from(text: str) -> Any:
    """A composite or rule from its text: names and numbers, nothing else is evaluated.

    Args:
        text: such as `EpsilonPlus` or `AttnLRP(linear=Gamma(0.05))`.

    Returns:
        What the text makes.

    Raises:
        InputError: for a name that is no composite or rule, and for anything but numbers in it.

    Example:
        >>> composite_from("Gamma(gamma=0.5)")
        Gamma(gamma=0.5)
    """
    try:
        return _called(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise InputError(f"--composite {text!r}: {error}") from error


def _called(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return ast.literal_eval(node)
    name = node.func.id
    known = [*COMPOSITES, *rules.RULES]
    if name not in known:
        raise ValueError(
            f"{name!r} is neither a composite nor a rule{_near(name, known)} "
            f"Known are {', '.join(known)}."
        )
    make = rules.RULES[name] if name in rules.RULES else getattr(composites, name)
    if any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("write every argument by itself")
    given = [_called(argument) for argument in node.args]
    named = {str(keyword.arg): _called(keyword.value) for keyword in node.keywords}
    try:
        return make(*given, **named)
    except TypeError as error:
        raise ValueError(
            f"{error}; {name} takes {', '.join(inspect.signature(make).parameters)}"
        ) from error


def _composites(options: Any) -> dict[str, Any]:
    return {text: composite_from(text) for text in options.composite or ["EpsilonPlus"]}


def _one_composite(options: Any) -> Any:
    found = _composites(options)
    if len(found) > 1:
        raise InputError("this command takes one --composite.")
    return next(iter(found.values()))
