"""Prompts from templates, each with the words that make its answer and those that would mislead."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prompt:
    """A text to go on with, and what in it makes the right continuation.

    Attributes:
        text: the prompt.
        right: what a good model goes on with, with its space.
        wrong: what it would go on with if it took another part for the reason.
        spans: named parts of the text, each from a character on to before another one.
        reason: the name of the part that makes the right continuation.
        removable: the names of parts that can be left out, so that a text remains.
    """

    text: str
    right: str
    wrong: str
    spans: Mapping[str, tuple[int, int]] = field(hash=False)
    reason: str
    removable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.reason not in self.spans or not set(self.removable) <= self.spans.keys():
            raise ValueError(f"{self.reason!r} and {self.removable} are among {list(self.spans)}.")

    def without(self, name: str) -> str:
        """The text without one of its parts."""
        start, end = self.spans[name]
        return self.text[:start] + self.text[end:]


_SUBJECTS = ("author", "teacher", "farmer", "pilot", "singer", "guard")
_ATTRACTORS = ("car", "table", "house", "tree", "bridge", "boat")
_PLACES = ("near", "behind", "beside")


def agreement() -> tuple[Prompt, ...]:
    """Subject-verb agreement across an attractor of the other number: 72 prompts.

    The subject decides between "is" and "are", the noun beside the verb would mislead.

    Example:
        >>> from lrp_jax.evaluation import language
        >>> language.agreement()[0].text, language.agreement()[0].right
        ('The author near the cars', ' is')

    Source: Linzen et al. 2016, "Assessing the Ability of LSTMs to Learn Syntax-Sensitive
    Dependencies"; as ground truth for explanations Arras et al. 2025.
    """
    found = []
    pairs = itertools.product(_SUBJECTS, _ATTRACTORS)
    for number, (subject, attractor) in enumerate(pairs):
        for plural in (False, True):
            parts = [
                ("", "The"),
                ("subject", f" {subject}{'s' if plural else ''}"),
                ("", f" {_PLACES[number % len(_PLACES)]} the"),
                ("attractor", f" {attractor}{'' if plural else 's'}"),
            ]
            verbs = (" are", " is") if plural else (" is", " are")
            found.append(_prompt(parts, *verbs, "subject"))
    return tuple(found)


_NAMES = ("Mary", "John", "Tom", "Anna", "James", "Sarah")
_SHOPS = ("store", "park", "school")
_THINGS = ("drink", "book", "ring")


def indirect_objects() -> tuple[Prompt, ...]:
    """Identification of the indirect object: 60 prompts.

    "When Mary and John went to the store, John gave a drink to" goes on with Mary: with the name
    that is there once. Each pair of names is there in both orders.

    Example:
        >>> from lrp_jax.evaluation import language
        >>> language.indirect_objects()[0].text
        'When Mary and John went to the store, John gave a drink to'

    Source: Wang et al. 2023, "Interpretability in the Wild: a Circuit for Indirect Object
    Identification in GPT-2 Small".
    """
    found = []
    for number, (one, other) in enumerate(itertools.permutations(_NAMES, 2)):
        place, thing = _SHOPS[number % 3], _THINGS[number // 3 % 3]
        for first in (True, False):
            names = [("indirect object", f" {one}"), ("subject", f" {other}")]
            names = names if first else names[::-1]
            parts = [
                ("", "When"), names[0], ("", " and"), names[1],
                ("", f" went to the {place},"), ("subject again", f" {other}"),
                ("", f" gave a {thing} to"),
            ]  # fmt: skip
            found.append(_prompt(parts, f" {one}", f" {other}", "indirect object"))
    return tuple(found)


_WORDS = ("silver", "green", "window", "river", "garden", "winter")
_FILLER = (
    "The weather was mild that day.", "People walked slowly through the streets.",
    "A train went by in the distance.", "The shops were open until the evening.",
    "Some children played in the yard.", "There was music from a small café.",
    "The old clock showed the wrong hour.", "Leaves had fallen on the path.",
)  # fmt: skip


def needles(sentences: int = 20, depths: Sequence[float] = (0.1, 0.5, 0.9)) -> tuple[Prompt, ...]:
    """One sentence with the answer in a text of others: six prompts for each depth.

    Args:
        sentences: how many others there are; eight different ones, over and over.
        depths: where the sentence stands: 0 is the beginning of the text, 1 the end.

    Raises:
        ValueError: for a depth outside of [0, 1] and a text without sentences.

    Example:
        >>> from lrp_jax.evaluation import language
        >>> print(language.needles(sentences=1, depths=[0])[0].text)
        The secret word of Mary is silver. The weather was mild that day. The secret word of Mary is

    Source: Kamradt 2023, "Needle in a haystack".
    """
    if sentences < 1 or not all(0 <= depth <= 1 for depth in depths):
        raise ValueError(
            f"{sentences} sentences and depths {list(depths)}: at least 1, and 0 to 1."
        )
    found = []
    for depth, (number, name) in itertools.product(depths, enumerate(_NAMES)):
        right, wrong = _WORDS[number], _WORDS[number - 1]
        asked = f"The secret word of {name} is"
        texts = [(f"sentence {i}", _FILLER[i % len(_FILLER)]) for i in range(sentences)]
        texts.insert(round(depth * sentences), ("needle", f"{asked} {right}."))
        parts = _spaced([*texts, ("", asked)])
        found.append(_prompt(parts, f" {right}", f" {wrong}", "needle"))
    return tuple(found)


_CITIES = ("Paris", "London", "Rome", "Berlin", "Madrid", "Vienna")


def passages(count: int = 4) -> tuple[Prompt, ...]:
    """Passages of which one has the answer: six prompts for each place of it.

    The others have answers to other questions. Each can be left out, which shows what the model
    really used.

    Args:
        count: how many passages there are, two to six.

    Raises:
        ValueError: for another count.

    Example:
        >>> from lrp_jax.evaluation import language
        >>> print(language.passages(2)[0].text)
        Mary lives in Paris. John lives in London. Mary lives in
    """
    if not 2 <= count <= len(_NAMES):
        raise ValueError(f"count={count}: there are two to {len(_NAMES)} passages.")
    found = []
    for first, place in itertools.product(range(len(_NAMES)), range(count)):
        people = [(first + i) % len(_NAMES) for i in range(count)]
        shift = 2 * first + 3 * place  # every city is right for some
        lives = {p: _CITIES[(p + shift) % len(_CITIES)] for p in people}
        asked, other = people[place], people[(place + 1) % count]
        facts = [f"{_NAMES[person]} lives in {city}." for person, city in lives.items()]
        texts = [(f"passage {i}", fact) for i, fact in enumerate(facts)]
        parts = _spaced([*texts, ("", f"{_NAMES[asked]} lives in")])
        reason = f"passage {place}"
        names = tuple(name for name, _ in texts)
        found.append(_prompt(parts, f" {lives[asked]}", f" {lives[other]}", reason, names))
    return tuple(found)


def _spaced(texts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, f" {text}" if i else text) for i, (name, text) in enumerate(texts)]


def _prompt(
    parts: Sequence[tuple[str, str]],
    right: str,
    wrong: str,
    reason: str,
    removable: tuple[str, ...] = (),
) -> Prompt:
    """A prompt of parts, those with a name as its spans."""
    spans, text = {}, ""
    for name, part in parts:
        if name:
            spans[name] = (len(text), len(text) + len(part))
        text += part
    return Prompt(text, right, wrong, spans, reason, removable)
