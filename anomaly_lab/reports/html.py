"""What all HTML pages share: a layout that loads nothing from the network, banners, and formats of numbers."""

import base64
import hashlib
import math
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import ChainableUndefined, ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

Filter = Callable[[Any], str]


class Script(NamedTuple):
    """A script of a page, which the page's policy knows by its hash.

    Attributes:
        text: JavaScript.
        hash: as a Content-Security-Policy writes it.
    """

    text: Markup
    hash: str


class Banner(NamedTuple):
    """A notice at the top of a page.

    Attributes:
        kind: CSS class: "warning" or "note"; of a verdict "good", "bad" or "open".
        title: in bold.
        text: one or two sentences.
    """

    kind: str
    title: str
    text: str


@cache
def scripts(room: str = "reports") -> tuple[Script, ...]:
    """Return the scripts of the pages of a room: every `*.js` of `reports`, and of the room.

    A page has all of them, and each does nothing where it finds nothing to do. Without scripts a page shows as much.

    Args:
        room: subpackage that holds the page's template.

    Examples:
        >>> [script.hash[:7] for script in scripts()] == ["sha256-"] * len(scripts())
        True
    """
    found = [path for folder in dict.fromkeys(("reports", room)) for path in files(f"anomaly_lab.{folder}").iterdir()]
    texts = [path.read_text(encoding="utf-8") for path in sorted(found, key=lambda path: path.name)
             if path.name.endswith(".js")]  # fmt: skip
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return tuple(Script(Markup(text), f"sha256-{digest}") for text, digest in zip(texts, digests, strict=True))


def environment(room: str = "reports", **filters: Filter) -> Environment:
    r"""Return the Jinja environment of a page.

    Args:
        room: subpackage that holds the page's template, and scripts of its own; the shared layout, macros and scripts
            come from `reports`.
        filters: further template filters by name.

    Examples:
        >>> environment().from_string("{{ n | whole }} images, {{ text }}").render(n=12000, text="a < b")
        '12\u202f000 images, a &lt; b'
    """
    jinja = Environment(
        loader=ChoiceLoader([PackageLoader(f"anomaly_lab.{folder}", "") for folder in (room, "reports")]),
        autoescape=True,  # ids, file names, header texts and reasons are untrusted
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"number": number, "whole": whole, "duration": duration, **filters}
    jinja.filters["drawing"] = Markup  # SVG from svg.py, which has escaped all text
    # The page's policy allows the scripts of these hashes and no others, whatever a stranger's text may smuggle in.
    jinja.globals["scripts"] = scripts(room)
    return jinja


def number(value: object) -> str:
    """Format a number with four significant digits; a missing one becomes a dash.

    Examples:
        >>> number(3.14159), number(-0.5), number(None)
        ('3.142', '−0.5', '–')
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:.4g}".replace("-", "−")


def whole(value: object) -> str:
    r"""Format an integer with thin spaces between thousands; anything else becomes a dash.

    Examples:
        >>> whole(12000)
        '12\u202f000'
    """
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else "–"


def without_folders(value: Any) -> Any:
    """Return a text, or the texts in mappings and lists, with absolute paths cut to their last names.

    Pages and dashboards are shown to others, who need not know where files lie on this machine.

    Examples:
        >>> without_folders("train data.root=/home/ann/scans/headct https://example.org/a/b")
        'train data.root=headct https://example.org/a/b'
        >>> without_folders({"root": "/mnt/my scans/head ct", "masks": ["**/lesion.nii.gz"]})
        {'root': 'head ct', 'masks': ['**/lesion.nii.gz']}
    """
    if isinstance(value, dict):
        return {key: without_folders(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(member) for member in value]
    return _FOLDERS.sub("", _WHOLE_LINE.sub(r"\1", value)) if isinstance(value, str) else value


_WHOLE_LINE = re.compile(
    r"""^((?:[ -]*[\w.]+:[ ]|[ ]*-[ ])?['"]?)(?:/[^/\n]+)*/(?=[^/\n]+$)""", re.MULTILINE
)  # also of YAML
_FOLDERS = re.compile(r"""(?<![\w./:*~-])(?:/[^/\s'"]+)+/(?=[^/\s'"])""")


def duration(seconds: object) -> str:
    """Format a duration given in seconds.

    Examples:
        >>> duration(48), duration(425), duration(12000)
        ('48 s', '7 min 5 s', '3 h 20 min')
    """
    if not isinstance(seconds, int | float):
        return "–"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
