"""Lists of a data set: CSV files with a header, row by row; a row that is short, long or unreadable is named."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from anomaly_lab.types import UserError


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row as ("<file>, line <n>", cells by column), spaces around cells taken off; blank lines are skipped.

    Args:
        path: the file, in UTF-8.
        columns: those it must have; others may be there.

    Raises:
        UserError: unreadable, a column missing, a row with too few or too many cells.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file)
            header = [cell.strip() for cell in next(table, [])]
            missing = [column for column in columns if column not in header]
            if missing:
                found = ", ".join(header) or "none"
                raise UserError(f"{path}: the columns {', '.join(missing)} are missing, it has {found}; get it again")
            for row in table:
                place = f"{path}, line {table.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise UserError(f"{place}: {len(row)} cells under {len(header)} columns; put the row right")
                yield place, {column: cell.strip() for column, cell in zip(header, row, strict=True)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: the list cannot be read ({error}); put it there or get it again") from error
