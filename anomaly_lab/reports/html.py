"""What all HTML pages share: a layout that asks nothing of the network, banners, numbers as people write them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jinja2 import ChainableUndefined, ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

Filter = Callable[[Any], str]


class Banner(NamedTuple):
    """Words above the numbers; `kind` (warning, note; of a verdict good, bad, open) is the CSS class."""

    kind: str
    title: str
    text: str


def environment(room: str = "reports", **filters: Filter) -> Environment:
    """Where a page's template is found and rendered: in `room`, over the layout and the parts of this one."""
    found = Environment(
        loader=ChoiceLoader([PackageLoader(f"anomaly_lab.{folder}", "") for folder in (room, "reports")]),
        autoescape=True,  # ids, file names, header texts and reasons are strangers' words
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "whole": whole, "duration": duration, **filters}
    found.filters["drawing"] = Markup  # SVG of svg.py, where every text was escaped
    return found


def number(value: object) -> str:
    """Four significant digits, a dash where there is nothing to show."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:.4g}".replace("-", "−")


def whole(value: object) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else "–"


def duration(seconds: object) -> str:
    """Seconds as 48 s, 7 min 5 s or 3 h 20 min."""
    if not isinstance(seconds, int | float):
        return "–"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
