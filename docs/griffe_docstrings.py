"""How the docstrings of the package become sections of the reference: doctests are examples."""

import re
from typing import Any

import griffe

BARE_DOCTEST = re.compile(r"\n\n(?=>>> )")
EXAMPLE = re.compile(r"\nExample:\n")


class Examples(griffe.Extension):
    """Doctests with or without a heading as the section `Examples`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object before it is parsed."""
        if obj.docstring is None:
            return
        text = EXAMPLE.sub("\nExamples:\n", obj.docstring.value)
        head, *rest = BARE_DOCTEST.split(text, maxsplit=1)
        if rest:
            text = f"{head}\n\nExamples:\n" + re.sub(r"^(?=.)", "    ", rest[0], flags=re.MULTILINE)
        obj.docstring.value = text
