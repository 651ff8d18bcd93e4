import csv
from pathlib import Path

from anomaly_lab.data.store.index import COLUMNS, Index
from anomaly_lab.types import Case


def test_file_reads_back_by_column_and_by_row(tmp_path):
    rows = [
        [f"a@{i}", "a", "p", str(i % 2), "", f"0,{i}", ("grid", "random", "unmasked")[i % 3], "ä b.png", f"{i}" * 64]
        for i in range(4)
    ]
    with (tmp_path / "index.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    index = Index.read(tmp_path / "index.csv")
    assert len(index) == 4
    assert index[2] == dict(zip(COLUMNS, rows[2], strict=True))
    assert [list(row.values()) for row in index] == rows
    assert index.labels().tolist() == [0, 1, 0, 1]
    assert index.has_role("random").tolist() == [False, True, False, False]
    assert index.has_role("grid", "unmasked").tolist() == [True, False, True, True]


def test_cases_that_are_not_stored_have_an_index_too():
    cases = [Case("x", "p", Path("d/x.png"), 1, class_name="gun"), Case("y", "q", Path("d/y.png"), 0)]
    index = Index.of_cases(cases)
    assert index[0] == dict(zip(COLUMNS, ("x", "x", "p", "1", "gun", "", "unmasked", "x.png", ""), strict=True))
    assert index.labels().tolist() == [1, 0]
