"""Charts as SVG text: lines with bands, stacked histograms, dots with intervals, deviations, box plots.

Every chart is 340 pixels wide, so that its 12-pixel text stays legible on a phone; pages place several side by side.
Colours come from the page: each mark has a CSS class (`series-0`, `anomalous`). All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH = 340
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 24, 40


class Axis(NamedTuple):
    """An axis: its label with the unit, and its range."""

    label: str
    low: float
    high: float


class Series(NamedTuple):
    """A line, or a dot if `x` has one entry; `style` is the CSS class; without a name it has no entry in the legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str


class Band(NamedTuple):
    """The region between two lines; `style` is the CSS class."""

    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    style: str


class Box(NamedTuple):
    """Repeated measurements of one quantity, drawn as dots over a box from quartile to quartile.

    With fewer than four values, only the dots are drawn.

    Attributes:
        name: of the row.
        values: the measurements.
        mark: value to compare with, drawn as a tick; None for none.
        text: the numbers as shown to the reader.
        style: CSS class.
    """

    name: str
    values: Sequence[float]
    mark: float | None
    text: str
    style: str


class Group(NamedTuple):
    """Values of one row of a stacked histogram; `style` is the CSS class."""

    name: str
    values: Sequence[float]
    style: str


class Deviation(NamedTuple):
    """A value on an axis with a middle, with its interval.

    Attributes:
        name: of the row.
        value: of the dot.
        low, high: of the interval; None without one.
        chance: by so much values lie off the middle by chance; a pale bar.
        text: the number as shown to the reader, on the free side of the row; empty for none.
        style: CSS class.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    chance: float
    text: str
    style: str


class Interval(NamedTuple):
    """A value with its interval, None where undefined; `text` shows the numbers, `style` is the CSS class."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    text: str
    style: str


class Upright(NamedTuple):
    """An upright axis: its name, and what stands at its lower and upper end."""

    name: str
    low: str
    high: str


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers (multiples of 1, 2, 2.5 or 5 times a power of ten) within [low, high].

    Examples:
        >>> ticks(0, 1)
        [0.0, 0.25, 0.5, 0.75, 1.0]
        >>> ticks(-3, 17)
        [0.0, 5.0, 10.0, 15.0]
    """
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of the values, widened by 5 % at each end; it is never empty.

    Examples:
        >>> padded([0, 10]), padded([5])
        ((-0.5, 10.5), (4.5, 5.5))
    """
    low, high = (min(values), max(values)) if len(values) else (0.0, 1.0)
    width = high - low if high - low > 1e-9 * max(abs(low), abs(high)) else 0.0  # a difference of rounding is none
    margin = width * 0.05 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def line_chart(series: Sequence[Series], x: Axis, y: Axis, height: int = 230, bands: Sequence[Band] = ()) -> str:
    """Draw lines on two linear axes, with bands behind them; if several series have a name, a legend stands below.

    Args:
        series: lines and dots; points that are not finite are left out.
        x, y: the axes.
        height: of the chart without its legend, in pixels.
        bands: regions behind the lines.

    Returns:
        SVG text.

    Examples:
        >>> chart = line_chart([Series("loss", [0, 10], [1, 0], "series-0")], Axis("iterations", 0, 10), Axis("", 0, 1))
        >>> chart.count("<polyline")
        1
    """
    frame = _Frame(x, y, height)
    named = [s for s in series if s.name] if len([s for s in series if s.name]) > 1 else []
    marks = [frame.band(b) for b in bands] + [frame.mark(s) for s in series]
    legend = [_legend(s, height + 14 + 18 * row) for row, s in enumerate(named)]
    label = f"{y.label} against {x.label}" + "".join(f"; {s.name}" for s in named)
    return _svg(label, height + 18 * len(named), [*frame.axes(), *marks, *legend])


def stacked_histogram(groups: Sequence[Group], label: str, line: tuple[str, float] | None = None) -> str:
    """Draw histograms above each other on a shared axis, each scaled to its highest bar, with a line through all.

    Args:
        groups: rows from top to bottom; empty ones are left out.
        label: of the shared axis.
        line: text and position of a vertical line, such as the threshold; None for none.

    Returns:
        SVG text.

    Examples:
        >>> rows = [Group("normal", [0.1, 0.2], "normal"), Group("anomalous", [0.7, 0.9], "anomalous")]
        >>> stacked_histogram(rows, "score", line=("threshold", 0.5)).count('class="bar')
        2
    """
    groups = [g for g in groups if len(g.values)]
    low, high = padded([v for g in groups for v in g.values] + ([line[1]] if line else []))
    row, top = 84, 30 if line else 8
    height = top + row * len(groups) + BOTTOM
    frame = _Frame(Axis(label, low, high), Axis("", 0, 1), height, left=10)
    parts = [*frame.x_axis()]
    for i, group in enumerate(groups):
        parts += _bars(frame, group, base=top + row * (i + 1), room=row - 24)
    if line:
        at = frame.px(line[1])
        anchor, x = ("end", at + 4) if at > WIDTH / 2 else ("start", at - 4)
        parts += [
            f'<path class="threshold" d="M{at:.1f} 18V{height - BOTTOM}"/>',
            _text(x, 12, line[0], f"strong {anchor}"),
        ]
    names = [f"{g.name} ({len(g.values)})" for g in groups]
    parts += [_text(frame.left, top + row * i + 16, name, "") for i, name in enumerate(names)]  # last: above the line
    return _svg(f"{label}: " + ", ".join(names), height, parts)


def interval_plot(rows: Sequence[Interval], reference: tuple[str, float] | None = None) -> str:
    """Draw values with intervals on an axis from 0 to 1, one per row.

    Args:
        rows: from top to bottom; the first one's name is in bold.
        reference: text and position of a tick in each row, such as the value of random guessing; None for none.

    Returns:
        SVG text.

    Examples:
        >>> rows = [Interval("detector", 0.9, 0.8, 1.0, ".900 [.80, 1.00]", "series-0")]
        >>> interval_plot(rows, reference=("guessing .500", 0.5)).count("<circle")
        1
    """
    row, top = 40, 8
    height = top + row * len(rows) + (44 if reference else 28)
    bottom = top + row * len(rows) + 2

    def px(value: float) -> float:
        return 8 + value * (WIDTH - 16)

    parts = [f'<path class="axis" d="M{px(0)} {bottom}H{px(1)}"/>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [f'<path class="axis" d="M{px(tick)} {bottom}v4"/>']
        parts += [_text(px(tick), bottom + 17, tick_label(tick), "middle")]
    if reference:
        parts += [_text(min(max(px(reference[1]), 62), WIDTH - 62), bottom + 34, reference[0], "middle muted")]
    for i, r in enumerate(rows):
        y = top + row * i
        parts += [
            _text(8, y + 13, r.name, "strong" if i == 0 else ""),
            _text(WIDTH - 8, y + 13, r.text, "end strong"),
        ]
        if reference:  # one tick per row: a line through all rows would cross the names
            parts += [f'<path class="chance" d="M{px(reference[1]):.1f} {y + 19}v14"/>']
        if r.low is not None and r.high is not None:
            parts += [f'<path class="whisker {r.style}" d="M{px(r.low):.1f} {y + 26}H{px(r.high):.1f}"/>']
        if r.value is not None:
            parts += [f'<circle class="dot {r.style}" cx="{px(r.value):.1f}" cy="{y + 26}" r="5"/>']
    return _svg("; ".join(f"{r.name} {r.text}" for r in rows), height, parts)


def deviation_plot(rows: Sequence[Deviation], axis: Axis, ends: tuple[str, str]) -> str:
    """Draw dots to both sides of the middle of an axis, one row each, with what chance explains as a pale bar.

    Args:
        rows: from top to bottom.
        axis: its middle is where nothing is told.
        ends: words above its two ends.

    Returns:
        SVG text.

    Examples:
        >>> rows = [Deviation("width", 0.8, 0.7, 0.9, 0.1, ".800", "series-0")]
        >>> deviation_plot(rows, Axis("AUROC", 0, 1), ("normal", "anomalous")).count("<circle")
        1
    """
    row, top, left = 20, 24, 164
    bottom = top + row * len(rows) + 4
    frame = _Frame(axis, Axis("", 0, 1), bottom + BOTTOM, left)
    middle = (axis.low + axis.high) / 2
    parts = [_text(left, 12, f"← {ends[0]}", "muted"), _text(WIDTH - RIGHT, 12, f"{ends[1]} →", "end muted")]
    parts += [*frame.x_axis(), f'<path class="chance" d="M{frame.px(middle):.1f} {top - 4}V{bottom}"/>']
    for i, r in enumerate(rows):
        y = top + row * i + 10
        parts += [_text(left - 8, y + 4, shortened(r.name), "end strong" if r.text else "end")]
        near, far = (frame.px(min(max(middle + s * r.chance, axis.low), axis.high)) for s in (-1, 1))
        parts += [f'<path class="noise" d="M{near:.1f} {y}H{far:.1f}"/>']
        if r.low is not None and r.high is not None:
            parts += [f'<path class="whisker {r.style}" d="M{frame.px(r.low):.1f} {y}H{frame.px(r.high):.1f}"/>']
        parts += [f'<circle class="dot {r.style}" cx="{frame.px(r.value):.1f}" cy="{y}" r="4.5"/>']
        if r.text:
            right = r.value < middle
            parts += [_text(WIDTH - RIGHT if right else left, y + 4, r.text, "end strong" if right else "strong")]
    label = f"{axis.label}: " + "; ".join(f"{r.name} {tick_label(r.value)}" for r in rows)
    return _svg(label, bottom + BOTTOM, parts)


def box_plot(rows: Sequence[Box], axis: Axis, mark: str) -> str:
    """Draw box plots with their dots on one axis, one per row.

    Args:
        rows: from top to bottom.
        axis: the shared axis.
        mark: legend of the tick across a row.

    Returns:
        SVG text.

    Examples:
        >>> rows = [Box("detector", [0.7, 0.8, 0.9], mark=0.5, text=".800 ± .100", style="series-0")]
        >>> box_plot(rows, Axis("AUROC", 0.4, 1), mark="guessing").count("<circle")
        3
    """
    row, top = 40, 8
    height = top + row * len(rows) + 66
    bottom = top + row * len(rows) + 2
    frame = _Frame(axis, Axis("", 0, 1), bottom + BOTTOM, left=10)
    parts = [*frame.x_axis()]
    if any(r.mark is not None for r in rows):
        parts += [f'<path class="axis" d="M{frame.left + 4} {height - 15}v12"/>']
        parts += [_text(frame.left + 12, height - 5, mark, "muted")]
    for i, r in enumerate(rows):
        y = top + row * i
        parts += [_text(8, y + 13, r.name, ""), _text(WIDTH - 8, y + 13, r.text, "end strong")]
        parts += _box(frame, r, y + 26)
    return _svg("; ".join(f"{r.name} {r.text}" for r in rows), height, parts)


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draw a confusion matrix: a cell is the darker, the larger its share of its row.

    Rows have the names of the classes, columns their numbers. Counts that do not fit are left out.

    Args:
        names: of the K classes.
        counts: [K][K], cases of the class of the row that are called the class of the column.

    Returns:
        SVG text.

    Examples:
        >>> matrix(["normal", "gun"], [[8, 2], [0, 5]]).count("<rect")
        4
    """
    k, left, top = len(names), 116, 40
    side = (WIDTH - left - 2) / k
    tall = min(44.0, max(18.0, side))
    parts = [_text(left, 12, "called", "muted")]
    for row, (name, cells) in enumerate(zip(names, counts, strict=True)):
        y, total = top + row * tall, max(1, sum(cells))
        short = name if len(name) < 15 else f"{name[:13]}…"
        parts += [_text(2, y + tall / 2 + 4, f"{row + 1} {short}", "")]
        parts += [_text(left + (row + 0.5) * side, 32, str(row + 1), "middle muted")]
        for column, count in enumerate(cells):
            x, share = left + column * side, count / total
            place = f'x="{x:.1f}" y="{y:.1f}" width="{side - 1.5:.1f}" height="{tall - 1.5:.1f}"'
            parts += [f'<rect class="cell" {place} fill-opacity="{0.04 + 0.7 * share:.2f}"/>']
            if count and 7.5 * len(str(count)) < side:
                parts += [_text(x + side / 2, y + tall / 2 + 4, str(count), "middle")]
    rows = (f"{name}: {', '.join(map(str, cells))}" for name, cells in zip(names, counts, strict=True))
    return _svg(f"confusion matrix; {'; '.join(rows)}", top + k * tall + 4, parts)


def parallel_plot(axes: Sequence[Upright], lines: Sequence[tuple[Sequence[float], str]], height: int = 240) -> str:
    """Draw upright axes beside each other, and a line across all of them for each of many things.

    Args:
        axes: from left to right.
        lines: where a line crosses each axis, from 0 (bottom) to 1 (top), and its CSS class; the last lie above.
        height: in pixels.

    Returns:
        SVG text.

    Examples:
        >>> axes = [Upright("lr", "1e-4", "1e-2"), Upright("AUROC", "0.5", "0.9")]
        >>> parallel_plot(axes, [([0.2, 1.0], "series-0")]).count("<polyline")
        1
    """
    top, bottom, side = 46, height - 22, 34
    step = (WIDTH - 2 * side) / max(1, len(axes) - 1)
    parts = []
    for values, style in lines:
        points = " ".join(f"{side + i * step:.1f},{bottom - v * (bottom - top):.1f}" for i, v in enumerate(values))
        parts.append(f'<polyline class="line {style}" points="{points}"/>')
    for i, axis in enumerate(axes):
        x, anchor = side + i * step, "middle"
        if i in (0, len(axes) - 1):
            anchor = "" if i == 0 else "end"
        at = {"": 2.0, "end": float(WIDTH - 2), "middle": x}[anchor]
        row = 12 if i % 2 == 0 else 26  # two rows of names, which are longer than the axes are apart
        parts += [f'<path class="axis" d="M{x:.1f} {top}V{bottom}"/>', _text(at, row, axis.name, f"{anchor} strong")]
        parts += [_text(at, top - 6, axis.high, f"{anchor} muted"), _text(at, bottom + 16, axis.low, f"{anchor} muted")]
    return _svg(f"parallel axes: {', '.join(axis.name for axis in axes)}", height, parts)


def shortened(name: str, longest: int = 22) -> str:
    """Return a name that fits beside a row of a chart.

    Examples:
        >>> shortened("width"), shortened("ManufacturerModelName, if any")
        ('width', 'ManufacturerModelName…')
    """
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def tick_label(value: float) -> str:
    """Format a number of an axis: three significant digits, k and M for thousands and millions, a true minus sign.

    Examples:
        >>> tick_label(0.25), tick_label(1500), tick_label(-2_000_000)
        ('0.25', '1.5k', '−2M')
    """
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


@dataclass(frozen=True)
class _Frame:
    """Maps data to pixels and draws the axes."""

    x: Axis
    y: Axis
    height: int
    left: int = LEFT

    def px(self, value: float) -> float:
        return self.left + (value - self.x.low) / (self.x.high - self.x.low) * (WIDTH - self.left - RIGHT)

    def py(self, value: float) -> float:
        room = self.height - BOTTOM - (TOP if self.y.label else 8)
        return self.height - BOTTOM - (value - self.y.low) / (self.y.high - self.y.low) * room

    def x_axis(self) -> list[str]:
        bottom = self.height - BOTTOM
        parts = [f'<path class="axis" d="M{self.left} {bottom}H{WIDTH - RIGHT}"/>']
        for tick in ticks(self.x.low, self.x.high):
            at = self.px(tick)
            anchor = "end" if at > WIDTH - 16 else "middle"
            parts += [f'<path class="axis" d="M{at:.1f} {bottom}v4"/>']
            parts += [_text(WIDTH - 6 if anchor == "end" else at, bottom + 16, tick_label(tick), anchor)]
        return [*parts, _text(WIDTH - RIGHT, bottom + 33, self.x.label, "end muted")]

    def axes(self) -> list[str]:
        parts = [_text(2, 12, self.y.label, "muted"), *self.x_axis()]
        for tick in ticks(self.y.low, self.y.high):
            parts += [f'<path class="grid" d="M{self.left} {self.py(tick):.1f}H{WIDTH - RIGHT}"/>']
            parts += [_text(self.left - 6, self.py(tick) + 4, tick_label(tick), "end")]
        return parts

    def band(self, band: Band) -> str:
        upper = [(self.px(x), self.py(y)) for x, y in zip(band.x, band.high, strict=True)]
        lower = [(self.px(x), self.py(y)) for x, y in zip(band.x, band.low, strict=True)][::-1]
        return f'<path class="band {band.style}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in upper + lower)}z"/>'

    def mark(self, series: Series) -> str:
        points = [
            (self.px(x), self.py(y))
            for x, y in zip(series.x, series.y, strict=True)
            if math.isfinite(x) and math.isfinite(y)
        ]
        if len(points) == 1:
            return f'<circle class="dot {series.style}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="5"/>'
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return f'<polyline class="line {series.style}" points="{line}"/>'


def _box(frame: _Frame, box: Box, y: float) -> list[str]:
    parts = []
    if len(box.values) >= 4:
        low, high = min(box.values), max(box.values)
        first, median, third = (frame.px(float(q)) for q in np.quantile(box.values, [0.25, 0.5, 0.75]))
        parts += [f'<path class="axis" d="M{frame.px(low):.1f} {y}H{first:.1f}M{third:.1f} {y}H{frame.px(high):.1f}"/>']
        parts += [f'<path class="box {box.style}" d="M{first:.1f} {y - 7}H{third:.1f}v14H{first:.1f}z"/>']
        parts += [f'<path class="line {box.style}" d="M{median:.1f} {y - 7}v14"/>']
    size = 3.5 if len(box.values) >= 4 else 5
    parts += [f'<circle class="dot {box.style}" cx="{frame.px(v):.1f}" cy="{y}" r="{size}"/>' for v in box.values]
    if box.mark is not None:
        parts += [f'<path class="axis" d="M{frame.px(box.mark):.1f} {y - 8}v16"/>']
    return parts


def _bars(frame: _Frame, group: Group, base: float, room: float) -> list[str]:
    counts, edges = np.histogram(group.values, bins=36, range=(frame.x.low, frame.x.high))
    bars = [
        f"M{frame.px(left) + 0.5:.1f} {base}v{-room * count / counts.max():.1f}H{frame.px(right) - 0.5:.1f}V{base}z"
        for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True)
        if count
    ]
    baseline = f'<path class="grid" d="M{frame.left} {base}H{WIDTH - RIGHT}"/>'
    return [f'<path class="bar {group.style}" d="{"".join(bars)}"/>', baseline]


def _legend(series: Series, y: float) -> str:
    key = (
        f'<circle class="dot {series.style}" cx="{LEFT + 12}" cy="{y - 4}" r="5"/>'
        if len(series.x) == 1
        else f'<path class="line {series.style}" d="M{LEFT} {y - 4}h24"/>'
    )
    return key + _text(LEFT + 32, y, series.name, "")


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(text)}</text>'


def _svg(label: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {height}"'
    return f'{head} width="{WIDTH}" height="{height}">{"".join(parts)}</svg>'
