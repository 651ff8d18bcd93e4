"""The output of `make list`: a grid of detectors and data sets that marks the tuned pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anomaly_lab.experiment import compose

TUNED, UNTUNED = "*", "."
LEGEND = "every pair is an experiment, <detector>_<dataset>; * marks pairs with tuned values"


def listing(width: int | None = None) -> Iterator[str]:
    """Format the grid detectors × data sets, the data sets, and the experiments that are complete files.

    Args:
        width: width of the terminal in characters; column headings are written vertically if the grid is wider. None
            for a pipe: lines are not shortened, headings stay horizontal, and the legend is omitted.

    Returns:
        The lines.

    Examples:
        >>> next(listing()).split()[:3]
        ['detector', 'abmnist', 'brats2017']
    """
    detectors, datasets, whole = compose.detectors(), compose.datasets(), compose.whole_files()
    first = max(map(len, ("experiment", *detectors, *datasets, *whole)))
    marks = {d: [TUNED if compose.is_tuned(d, s) else UNTUNED for s in datasets] for d in detectors}
    columns = list(datasets)
    upright = width is not None and first + sum(len(name) + 2 for name in columns) > width
    widths = [1 if upright else len(name) for name in columns]
    yield from _headings(columns, first, widths, upright)
    for name, comment in detectors.items():
        cells = "  ".join(mark.ljust(size) for mark, size in zip(marks[name], widths, strict=True))
        yield _cut(f"{name:<{first}}  {cells}  {comment}", width)
    for title, block in (("dataset", datasets), ("experiment", whole)):
        if block:
            yield ""
            yield f"{title:<{first}}  about"
            yield from (_cut(f"{name:<{first}}  {comment}".rstrip(), width) for name, comment in block.items())
    if width is not None:
        yield ""
        yield LEGEND


def _headings(columns: Sequence[str], first: int, widths: Sequence[int], upright: bool) -> Iterator[str]:
    if not upright:
        cells = "  ".join(name.ljust(size) for name, size in zip(columns, widths, strict=True))
        yield f"{'detector':<{first}}  {cells}  about"
        return
    height = max(map(len, columns))
    for letters in zip(*(name.rjust(height) for name in columns), strict=True):
        yield f"{'':<{first}}  {'  '.join(letters)}".rstrip()


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"
