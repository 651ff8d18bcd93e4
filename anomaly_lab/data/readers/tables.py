"""Reader for the tables of a data set: CSV files with a header row; errors name the file and the line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from anomaly_lab.experiment.tables import open_table
from anomaly_lab.types import UserError

MAX_SHOWN = 200  # characters of a header that are shown: what is no table may be one long line


def as_csv(lines: Iterable[str]) -> tuple[Iterator[str], str]:
    r"""Return the lines of a table as the module csv takes them, and what separates cells.

    Spreadsheets write `;` where the comma is the decimal sign, and `,,` for an emptied row, which becomes a blank one.

    Args:
        lines: of the file, the header first.

    Examples:
        >>> lines, delimiter = as_csv(["id;label\n", "7;1\n", ";\n"])
        >>> list(lines), delimiter
        (['id;label\n', '7;1\n', '\n'], ';')
    """
    rest = iter(lines)
    header = next(rest, "")
    delimiter = ";" if header.count(";") > header.count(",") else ","
    return (line if line.strip(delimiter + " \r\n") else "\n" for line in chain([header], rest)), delimiter


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    r"""Yield each row as ("<file>, line <n>", {column: cell}); cells are stripped and blank lines skipped.

    Args:
        path: the CSV file, in UTF-8, with commas or semicolons.
        columns: the required columns; the file may have more.

    Raises:
        UserError: the file is unreadable, a required column is missing, or a row has too few or too many cells.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.csv"
        ...     _ = path.write_text("id, label\n7, 1\n")
        ...     [cells for place, cells in read_table(path, ["id", "label"])]
        [{'id': '7', 'label': '1'}]
    """
    try:
        with open_table(path, "utf-8-sig") as file:
            lines, delimiter = as_csv(file)
            table = csv.reader(lines, delimiter=delimiter)
            header = [cell.strip() for cell in next(table, [])]
            missing = [column for column in columns if column not in header]
            if missing:
                present = " ".join(", ".join(header)[:MAX_SHOWN].split()) or "none"
                raise UserError(
                    f"{path}: the columns {', '.join(missing)} are missing, it has {present}; correct the header or "
                    "download it again"
                )
            if twice := [column for column in columns if header.count(column) > 1]:
                raise UserError(f"{path}: the columns {', '.join(twice)} appear twice; keep one of each")
            for row in table:
                place = f"{path}, line {table.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise UserError(f"{place}: {len(row)} cells under {len(header)} columns; correct the row")
                yield place, {column: cell.strip() for column, cell in zip(header, row, strict=True)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: the table cannot be read ({error}); add it or download it again") from error
