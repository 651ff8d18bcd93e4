"""Draws boxes on a grid and arrows between them as SVG: the visual language of the pictures in docs/methods.

A picture is a list of panels, one for each phase of a training and one for scoring. A panel is described by nodes on a
grid and arrows between them. Boxes are networks, hatched where their weights do not move; arrows are tensors, with
name and shape of one image; rounded tags are losses (orange) and results (green); boxes with a double bottom are
stores. Colours follow the reader's light or dark setting. Needs nothing but Python.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from itertools import pairwise
from typing import Any, Literal

WIDTH = 740  # of every picture, in its own units; about a column of text
COLUMN, ROW = 148, 78  # distance of the grid's lines
LEFT, TITLE, BOTTOM = 48, 40, 22  # room left of column 0's centre, above row 0's boxes, below the last row's
BOX_HEIGHT, TAG_HEIGHT = 44, 28
BOX_WIDTH = 96

Side = Literal["left", "right", "top", "bottom"]
Point = tuple[float, float]


def letters(words: str) -> int:
    """How many places they take: a hat or a tilde stands above its letter."""
    return sum(not unicodedata.combining(letter) for letter in words)


@dataclass(frozen=True)
class Node:
    """Something at a place of the grid.

    Attributes:
        kind: `network`, `tensor` (where one comes from), `loss`, `output` or `store`.
        label: its name; `note`: a second, smaller line.
        at: column and row of its centre; fractions are welcome.
        module: of a network: the detector's attribute, whose weights move in the phases that list it.
        frozen: whether a network is hatched.
        width: of its outline; 0 for what the label needs.
    """

    kind: Literal["network", "tensor", "loss", "output", "store"]
    label: str
    at: Point
    note: str = ""
    module: str = ""
    frozen: bool = False
    width: float = 0

    @property
    def centre(self) -> Point:
        """In the picture's units, row 0 at 0."""
        return LEFT + self.at[0] * COLUMN, self.at[1] * ROW

    @property
    def size(self) -> Point:
        """Width and height of the outline."""
        if self.kind in ("network", "store"):
            return self.width or BOX_WIDTH, BOX_HEIGHT
        text = max(letters(self.label) * 7.0, letters(self.note) * 6.1)
        if self.kind == "tensor":
            return self.width or max(text + 4, 18), 32 if self.note else 20
        return self.width or text + 22, TAG_HEIGHT if not self.note else TAG_HEIGHT + 12

    def port(self, side: Side, shift: float = 0) -> Point:
        """Where an arrow meets a side of the outline, `shift` away from its middle."""
        (x, y), (width, height) = self.centre, self.size
        return {
            "left": (x - width / 2, y + shift),
            "right": (x + width / 2, y + shift),
            "top": (x + shift, y - height / 2),
            "bottom": (x + shift, y + height / 2),
        }[side]


@dataclass(frozen=True)
class Arrow:
    """A tensor on its way from node to node.

    Attributes:
        begin, end: keys of the panel's nodes.
        name, shape: written above and below the line, e.g. `x̂` and `1×64×64`.
        leave, enter: sides of the two outlines.
        lane: column (or row) of the part between two turns, where the way has two; None for one near the end.
        shift: how far from the middles of the sides it leaves and enters.
        segment: which part of the way is labelled, from 0; None for the first that is long enough.
        dashed: not a tensor of the computation: weights that are copied, steps that are repeated.
    """

    begin: str
    end: str
    name: str = ""
    shape: str = ""
    leave: Side = "right"
    enter: Side = "left"
    lane: float | None = None
    shift: Point = (0, 0)
    segment: int | None = None
    dashed: bool = False

    def way(self, nodes: Mapping[str, Node]) -> list[Point]:
        """Corners of the line, from outline to outline."""
        a, b = nodes[self.begin].port(self.leave, self.shift[0]), nodes[self.end].port(self.enter, self.shift[1])
        across, into = self.leave in ("left", "right"), self.enter in ("left", "right")
        if across != into:  # one turn
            return [a, (b[0], a[1]) if across else (a[0], b[1]), b]
        if across:
            if a[1] == b[1] and self.lane is None:
                return [a, b]
            x = b[0] - 18 if self.lane is None else LEFT + self.lane * COLUMN
            return [a, (x, a[1]), (x, b[1]), b]
        if a[0] == b[0] and self.lane is None:
            return [a, b]
        y = (a[1] + b[1]) / 2 if self.lane is None else self.lane * ROW
        return [a, (a[0], y), (b[0], y), b]


@dataclass(frozen=True)
class Panel:
    """One phase (`phase`: its name) or scoring (`phase` empty), with a title that says what happens in it."""

    phase: str
    title: str
    nodes: Mapping[str, Node]
    arrows: Iterable[Arrow] = field(default=())

    @property
    def rows(self) -> Point:
        """The highest and the lowest y that is drawn."""
        ys = [node.centre[1] + sign * node.size[1] / 2 for node in self.nodes.values() for sign in (-1, 1)]
        ys += [y - 18 * bool(arrow.name) for arrow in self.arrows for _, y in arrow.way(self.nodes)]
        return min(ys), max(ys)


# --- shorthand ---------------------------------------------------------------------------------------------------


def net(label: str, at: Point, module: str, note: str = "", **look: Any) -> Node:
    """A network; `module` is the detector's attribute, `look` may be `frozen` and `width`."""
    return Node("network", label, at, note, module, **look)


def source(label: str, at: Point, note: str = "") -> Node:
    """Where a tensor comes from: an image x, noise z."""
    return Node("tensor", label, at, note)


def loss(label: str, at: Point, note: str = "") -> Node:
    """A term of a loss; the note says whose."""
    return Node("loss", label, at, note)


def output(label: str, at: Point, note: str = "") -> Node:
    """A score or a map."""
    return Node("output", label, at, note)


def store(label: str, at: Point, note: str = "", width: float = 0) -> Node:
    """A collection on disk or in a buffer."""
    return Node("store", label, at, note, width=width)


def freeze(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The same nodes, all networks hatched."""
    return {key: replace(node, frozen=node.kind == "network") for key, node in nodes.items()}


# --- drawing -----------------------------------------------------------------------------------------------------

STYLE = """
svg{color:#1c2128;--paper:#fff;--net:#e4eafc;--loss:#fdebd3;--out:#d9f2e0;--edge:#5b6577}
@media (prefers-color-scheme:dark){
svg{color:#e6e9ef;--paper:#1e2129;--net:#2b3552;--loss:#4d3717;--out:#1d4630;--edge:#9aa5b8}}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:currentColor;font-size:13px}
.small{font-size:11px}
.title{font-size:13.5px;font-weight:600}
.halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.box{fill:var(--net);stroke:currentColor;stroke-width:1.3}
.loss{fill:var(--loss);stroke:currentColor}
.output{fill:var(--out);stroke:currentColor}
.store{fill:var(--paper);stroke:currentColor;stroke-width:1.3}
.line{fill:none;stroke:var(--edge);stroke-width:1.5}
.dashed{stroke-dasharray:5 4}
.rule{stroke:var(--edge);stroke-opacity:.45}
"""
DEFINITIONS = """<defs>
<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<path d="M0 0V7" stroke="currentColor" stroke-opacity=".38" stroke-width="2.2"/></pattern>
<marker id="head" viewBox="0 0 8 8" refX="7.4" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 .6 8 4 0 7.4Z" fill="var(--edge)"/></marker>
</defs>"""


def text(at: Point, words: str, kind: str = "", anchor: str = "middle") -> str:
    """One line of text; `at` is the middle of its base line."""
    look = f' class="{kind}"' if kind else ""
    return f'<text x="{at[0]:g}" y="{at[1]:g}" text-anchor="{anchor}"{look}>{escape(words)}</text>'


def rectangle(node: Node, kind: str, radius: float, fill: str = "") -> str:
    """The outline of a node."""
    (x, y), (width, height) = node.centre, node.size
    look = f' style="fill:{fill}"' if fill else ""
    return (
        f'<rect class="{kind}" x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" '
        f'rx="{radius:g}"{look}/>'
    )


def draw_node(node: Node) -> str:
    """Outline and words."""
    (x, y), parts = node.centre, list[str]()
    if node.kind == "network":
        parts.append(rectangle(node, "box", 4, "var(--paper)" if node.frozen else ""))
        if node.frozen:
            parts.append(rectangle(node, "box", 4, "url(#hatch)"))
    elif node.kind == "store":
        parts.append(rectangle(node, "store", 2))
        (width, height) = node.size
        parts.append(f'<path class="line" d="M{x - width / 2:g} {y + height / 2 - 4:g}h{width:g}"/>')
    elif node.kind != "tensor":
        parts.append(rectangle(node, node.kind, node.size[1] / 2))
    halo = " halo" if node.frozen or node.kind == "tensor" else ""
    parts.append(text((x, y + (-2.5 if node.note else 4.5)), node.label, halo.strip()))
    if node.note:
        parts.append(text((x, y + 12), node.note, f"small{halo}"))
    return "".join(parts)


def draw_arrow(arrow: Arrow, nodes: Mapping[str, Node]) -> tuple[str, str]:
    """Its line and its words, which are drawn above all lines."""
    way = arrow.way(nodes)
    corners = "L".join(f"{x:g} {y:g}" for x, y in way)
    line = f'<path class="line{" dashed" if arrow.dashed else ""}" d="M{corners}" marker-end="url(#head)"/>'
    if not (arrow.name or arrow.shape):
        return line, ""
    segments = list(pairwise(way))
    long = [i for i, (a, b) in enumerate(segments) if abs(a[0] - b[0]) > 24]
    a, b = segments[arrow.segment if arrow.segment is not None else (long[0] if long else 0)]
    x, y = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    if a[1] == b[1]:
        places = (text((x, y - 5), arrow.name, "halo"), text((x, y + 13), arrow.shape, "small halo"))
    else:
        places = (
            text((x + 6, y - 2 if arrow.shape else y + 4), arrow.name, "halo", "start"),
            text((x + 6, y + 11 if arrow.name else y + 4), arrow.shape, "small halo", "start"),
        )
    return line, "".join(place for place, words in zip(places, (arrow.name, arrow.shape), strict=True) if words)


def draw_panel(panel: Panel, top: float) -> tuple[str, float]:
    """The panel with its title at `top`, and where the next one begins."""
    high, low = panel.rows
    offset = top + TITLE - high
    arrows = [draw_arrow(arrow, panel.nodes) for arrow in panel.arrows]
    heading = f"Scoring: {panel.title}" if not panel.phase else f"Phase “{panel.phase}”: {panel.title}"
    inside = [line for line, _ in arrows] + [draw_node(node) for node in panel.nodes.values()] + [w for _, w in arrows]
    body = (
        f'<path class="rule" d="M0 {top + 0.5:g}H{WIDTH}"/>{text((4, top + 20), heading, "title", "start")}'
        f'<g transform="translate(0 {offset:g})">{"".join(inside)}</g>'
    )
    return body, offset + low + BOTTOM


def legend(top: float) -> str:
    """What the outlines mean; the same under every picture."""
    y = top + 14
    samples = (
        (Node("network", "", (0, 0), width=26), "network that learns", 150),
        (Node("network", "", (0, 0), width=26, frozen=True), "frozen network", 126),
        (Node("loss", "", (0, 0), width=26), "loss", 68),
        (Node("output", "", (0, 0), width=26), "score, map", 104),
        (Node("store", "", (0, 0), width=26), "store", 74),
    )
    x, parts = 20.0, [f'<path class="rule" d="M0 {top + 0.5:g}H{WIDTH}"/>']
    for node, words, room in samples:
        place = f"translate({x:g} {y:g}) scale(1 {16 / node.size[1]:g}) translate({-LEFT} 0)"
        parts.append(f'<g transform="{place}">{draw_node(node)}</g>{text((x + 19, y + 4), words, "small", "start")}')
        x += room
    parts.append(text((x - 2, y + 4), "arrow: tensor of one image", "small", "start"))
    return "".join(parts)


def draw(title: str, panels: Iterable[Panel]) -> str:
    """A whole picture as SVG."""
    panels = list(panels)
    for node in (node for panel in panels for node in panel.nodes.values()):
        if not 0 <= node.port("left")[0] < node.port("right")[0] <= WIDTH:
            raise ValueError(f"{title}: {node.label!r} at {node.at} does not fit into {WIDTH}")
    bodies, y = [], 0.0
    for panel in panels:
        body, y = draw_panel(panel, y)
        bodies.append(body)
    height = y + 28
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img" aria-labelledby="title"><title id="title">{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'{DEFINITIONS}\n<rect width="{WIDTH}" height="{height:g}" fill="var(--paper)"/>\n'
        + "\n".join(bodies)
        + f"\n{legend(y)}\n</svg>\n"
    )
