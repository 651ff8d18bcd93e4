"""Cells that a spreadsheet would run are defused, and read back exactly."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_lab.experiment.tables import defused, open_table, restored, to_csv

CELLS = st.text(alphabet=st.one_of(st.sampled_from("'=+-@\t\r\n\uff1d.eE0159,\"a"), st.characters(codec="utf-8")))


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "''=1", "-", "+a"]
)
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(cell: str) -> None:
    assert defused(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-1.5", "+3", "-1e-7", "-.5", "-inf", "nan", "a=b", "", "'a'", "'", "12", "−.012"])
def test_numbers_and_other_texts_stay(cell: str) -> None:
    assert defused(cell) == restored(cell) == cell


@given(CELLS)
def test_reading_undoes_it(cell: str) -> None:
    assert restored(defused(cell)) == cell
    assert restored(cell) == cell or cell.startswith("'")


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1))
def test_a_table_is_read_back_as_it_was(rows: list[list[str]]) -> None:
    read = csv.reader(io.StringIO(to_csv(rows), newline=""))
    assert [[restored(cell) for cell in row] for row in read] == rows


def test_numbers_of_any_kind_are_written_as_numbers() -> None:
    assert to_csv([[1, -0.5, None, float("-inf"), True]]) == "1,-0.5,,-inf,True\n"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "a.csv"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](path)
    with pytest.raises(OSError, match="it is no file"):
        open_table(path)
