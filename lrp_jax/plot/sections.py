"""The parts that pages are made of: answers of language models, tables, heatmaps, drawings."""

import base64
import html
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..questions.generation import Generation
from .drawings import concepts as concepts, flow as flow
from .heatmaps import grey
from .pages import Section, level, number
from .pieces import clean
from .tools import Scale, bound, map_of

_NUMBERS = '<p><label><input type="checkbox" class="numbers"> show the numbers</label></p>\n'


def answers(
    found: Generation | Mapping[str, Generation], tokens: Sequence[str], *, chosen: int = 0
) -> Section:
    """The tokens of an answer to choose from, and what made the chosen one, token by token.

    Every row has its own scale; below it one table shows all rows of the first matrix on one scale.
    The line over a row says what the tokens hold together, and what layers absorbed of the score.

    Args:
      found: what `lrp_jax.explain_generation(...)(...)` returns, of one example or a batch of one;
        or several of one answer by their names, such as the logit and the contrast with the
        runner-up.
      tokens: the tokens of prompt and answer, with a tokenizer's marks or without.
      chosen: which token of the answer is shown first.

    Returns:
      A section for `lrp_jax.plot.page`.
    """
    views = {"": found} if isinstance(found, Generation) else dict(found)
    views = {name: _one_example(view) for name, view in views.items()}
    first = next(iter(views.values()))
    count = np.shape(first.relevance)[-2]
    for one in views.values():
        if np.shape(one.relevance) != (count, len(tokens)) or one.prompt != first.prompt:
            raise ValueError(
                f"{len(tokens)} tokens with a prompt of {first.prompt} need relevance "
                f"{(count, len(tokens))} of one example, got {np.shape(one.relevance)} with a "
                f"prompt of {one.prompt}"
            )
    if not 0 <= chosen < count:
        raise ValueError(f"chosen={chosen}: the answer has {count} tokens")
    texts = clean(tokens)
    ends = texts[first.prompt :]
    table = _map(first.relevance, [_line(t) for t in ends], [_line(t) for t in texts])

    def body(name: str) -> str:
        choices = "".join(
            f'<label class="choice"><input type="radio" name="{name}" class="r{i}"'
            f"{' checked' if i == chosen else ''}><span>{html.escape(_line(text))}</span></label> "
            for i, text in enumerate(ends)
        )
        rows = "\n".join(
            f'<div class="chosen q{i}">{"".join(_row(v, i, texts, n) for n, v in views.items())}'
            "</div>"
            for i in range(count)
        )
        return (
            '<div class="choose"><fieldset><legend>the answer: choose a token to explain</legend>'
            f"{choices}</fieldset>\n{_NUMBERS}{rows}\n<details><summary>all tokens of the answer "
            f"(rows) by all tokens before them</summary>{table}</details></div>"
        )

    return Section(body, choices=count)


def _one_example(found: Generation) -> Generation:
    """Without the axis of a batch of one."""
    shape = np.shape(found.relevance)
    if len(shape) == 3 and shape[0] > 1:
        raise ValueError(f"a page shows one example of {shape[0]}: found.example(0), ...")
    return found.example(0) if len(shape) == 3 else found


def _row(found: Generation, row: int, texts: Sequence[str], name: str) -> str:
    """One token of an answer: its score, who holds how much of it, and the tokens before it."""
    values = np.asarray(found.relevance, float)[row]
    score, end = float(np.asarray(found.scores)[row]), found.prompt + row
    prompt, answer = values[: found.prompt].sum(), values[found.prompt :].sum()
    told = (
        f"score {number(score)} = prompt {number(prompt)}, answer so far {number(answer)}, "
        f"absorbed by layers {number(score - prompt - answer)}"
    )
    later = texts[end:] if values[end:].any() else []
    shown = [*texts[:end], *later]
    heading = f"<h3>{html.escape(name)}</h3>" if name else ""
    spans = _spans(shown, values[: len(shown)])
    return f'{heading}<p>{told}</p><p class="text">{spans}</p>'


def _spans(texts: Sequence[str], values: np.ndarray) -> str:
    limit = bound(values)
    return "".join(
        f'<i class="v {level(value / limit)}">{html.escape(_line(text))}<b>{number(value)}</b></i>'
        f"{'<br>' if text.endswith(chr(10)) else ''}"
        for text, value in zip(texts, values, strict=True)
    )


def _line(text: str) -> str:
    """A token in one line: ends of lines as a sign."""
    return text.replace("\n", "⏎")


def matrix(
    values: Any, rows: Sequence[str], columns: Sequence[str], *, caption: str = "",
    scale: Scale = "max",
) -> Section:  # fmt: skip
    """A table of relevance on colours: heads of layers, layers by tokens, concepts by classes.

    Args:
      values: shape `(rows, columns)`.
      rows: a name for each row.
      columns: a name for each column.
      caption: a sentence below it.
      scale: as `lrp_jax.plot.heatmap`.

    Returns:
      A section for `lrp_jax.plot.page`.
    """
    table = _NUMBERS + _map(values, rows, columns, caption, scale)
    return Section(lambda name: table)


def _map(
    values: Any, rows: Sequence[str], columns: Sequence[str], caption: str = "",
    scale: Scale = "max",
) -> str:  # fmt: skip
    values = np.asarray(values, float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"{len(rows)} rows and {len(columns)} columns have names, the values have the shape "
            f"{values.shape}"
        )
    limit = bound(values, scale)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "\n".join(
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td class={level(v / limit)}><b>{number(v)}</b></td>" for v in row)
        + "</tr>"
        for name, row in zip(rows, values, strict=True)
    )
    told = f"{caption} The strongest colour is {number(limit).lstrip('+')}."
    return (
        f'<figure><div class="scroll"><table class="map"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div><output></output>"
        f"<figcaption>{html.escape(told.strip())}</figcaption></figure>"
    )


def heatmaps(relevances: Mapping[str, Any], image: Any = None, *, scale: Scale = "max") -> Section:
    """Heatmaps of one image under several composites or for several classes, with a slider.

    Args:
      relevances: by name relevance `(height, width)` or `(height, width, channels)`; every one has
        its own scale.
      image: what was explained, of the same size, drawn in grey below.
      scale: as `lrp_jax.plot.heatmap`.

    Returns:
      A section for `lrp_jax.plot.page`.
    """
    if not relevances:
        raise ValueError("there are no heatmaps to show")
    maps = {name: map_of(relevance) for name, relevance in relevances.items()}
    ground = None if image is None else grey(image)
    shapes = {values.shape for values in maps.values()} | {
        ground.shape for ground in [ground] if ground is not None
    }
    if len(shapes) > 1:
        raise ValueError(f"the heatmaps and the image have several sizes: {sorted(shapes)}")
    photo = "" if ground is None else _picture("photo", (255 * ground).astype(np.uint8))
    figures = "\n".join(_figure(name, values, photo, scale) for name, values in maps.items())

    def body(name: str) -> str:
        shown = "".join(
            f'<label><input type="radio" name="{name}" class="{sign}"{mark}> {text}</label> '
            for sign, mark, text in (
                ("both", " checked", "both signs"),
                ("onlyp", "", "positive"),
                ("onlyn", "", "negative"),
            )
        )
        return (
            f'<div class="slides"><p hidden><label>{len(maps)} heatmaps <input type="range" '
            f'min="0" max="{len(maps) - 1}" value="0"></label><output></output></p>'
            f"<p>{shown}</p><div>\n{figures}</div></div>"
        )

    return Section(body)


def _figure(name: str, values: np.ndarray, photo: str, scale: Scale) -> str:
    limit = bound(values, scale)
    known = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    strength = (255 * np.clip(np.abs(known) / limit, 0, 1) ** 0.7).astype(np.uint8)
    pictures = "".join(
        _picture(side, np.dstack([np.full((*values.shape, 3), colour, np.uint8), strength * mask]))
        for side, colour, mask in (
            ("plus", (217, 72, 15), known > 0),
            ("minus", (25, 113, 194), known < 0),
        )
    )
    place = np.unravel_index(np.abs(known).argmax(), known.shape)
    told = (
        f"{name}: sum {number(known.sum())}, positive {number(known[known > 0].sum())}, negative "
        f"{number(known[known < 0].sum())}, largest {number(known[place])} at row {place[0]}, "
        f"column {place[1]}"
    )
    return (
        f'<figure data-name="{html.escape(name)}"><div class="layers">{photo}{pictures}</div>'
        f"<figcaption>{html.escape(told)}</figcaption></figure>"
    )


def _picture(name: str, pixels: np.ndarray) -> str:
    """Grey (height, width) or red, green, blue and opacity (height, width, 4) as an element."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    kind = 0 if pixels.ndim == 2 else 6

    def chunk(label: bytes, content: bytes) -> bytes:
        check = zlib.crc32(label + content)
        return struct.pack(">I", len(content)) + label + content + struct.pack(">I", check)

    unfiltered = np.insert(rows, 0, 0, axis=1).astype(np.uint8).tobytes()
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(unfiltered, 9)),
            chunk(b"IEND", b""),
        ]
    )
    code = base64.b64encode(png).decode()
    return f'<img class="{name}" alt="" src="data:image/png;base64,{code}">'
