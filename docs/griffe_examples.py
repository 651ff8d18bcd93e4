"""An extension of griffe, which reads docstrings for the site: a section `Example:` is shown as code."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Calls the section as griffe does; by the singular it means a box of Markdown, where `[a][b]` is a link."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
