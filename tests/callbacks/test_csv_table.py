"""A spreadsheet finds the record."""

import csv
from pathlib import Path

from callbacks.conftest import told

from anomaly_lab.callbacks.csv_table import CSVTable


def test_a_table_has_the_values_of_the_record(run: Path) -> None:
    told(CSVTable(), run)
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    curve = [(int(row["step"]), float(row["train/critic"])) for row in rows if row["train/critic"]]
    assert curve == [(10, 11.5), (20, 21.5)]
    assert [float(row["test/auroc"]) for row in rows if row["test/auroc"]] == [0.75]
