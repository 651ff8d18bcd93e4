"""CSV files that people open in a spreadsheet, where a cell that begins like a formula would be run as one."""

import csv
import errno
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII)
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # the full-width = + - @ begin formulas, too


def open_table(path: Path, encoding: str = "utf-8") -> TextIO:
    """Open a CSV file for reading.

    Raises:
        OSError: it cannot be opened, or is a pipe, which would keep us waiting, or a device, which may never end.

    Examples:
        >>> open_table(Path("/dev/zero"))
        Traceback (most recent call last):
            ...
        OSError: [Errno 22] it is no file: '/dev/zero'
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return path.open(newline="", encoding=encoding)


def to_csv(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV text whose cells are defused, see `defused`.

    Args:
        rows: the head, then the rows.

    Examples:
        >>> print(to_csv([["id", "score"], ["=1+1", -0.5], ["a,b", "-0.5"]]), end="")
        id,score
        '=1+1,-0.5
        "a,b",-0.5
    """
    return "".join(csv_lines(rows))


def csv_lines(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    r"""Yield the lines of `to_csv`, for tables that are too long to be held twice.

    Examples:
        >>> list(csv_lines([["id"], ["@a"]]))
        ['id\n', "'@a\n"]
    """
    line: list[str] = []
    writer = csv.writer(SimpleNamespace(write=line.append), lineterminator="\r\n")  # so that both letters are quoted
    for row in rows:
        writer.writerow([cell if isinstance(cell, int | float | None) else defused(str(cell)) for cell in row])
        yield line.pop()[:-2] + "\n"


def defused(cell: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would take for a formula; numbers stay as they are.

    Examples:
        >>> [defused(cell) for cell in ("=1+1", "@a", "-b", "-1.5", "a=b", "'=1+1")]
        ["'=1+1", "'@a", "'-b", '-1.5', 'a=b', "''=1+1"]
    """
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell.lstrip("'")) else cell


def restored(cell: str) -> str:
    """Return the text that `defused` was given.

    Examples:
        >>> [restored(defused(cell)) for cell in ("=1+1", "-1.5", "'=1+1", "'a'")]
        ['=1+1', '-1.5', "'=1+1", "'a'"]
    """
    return cell[1:] if cell.startswith("'") and defused(cell) != cell else cell
