"""The table, as Markdown and as CSV."""

import csv
import io
from dataclasses import replace

import pytest
from study_runs import small_study, write_run

from anomaly_lab.studies.findings import read_findings
from anomaly_lab.studies.page import table
from anomaly_lab.studies.plan import Key


def test_markdown_and_csv_say_the_same(findings):
    text = table.markdown(findings)
    assert "| Good † [1] |" in text
    assert f"† {table.TWIN}" in text
    assert "[1] We chose this." in text
    assert "missing: poor-set-seed2: it broke" in text
    rows = list(csv.DictReader(io.StringIO(table.table_csv(findings))))
    assert float(rows[0]["mean"]) == pytest.approx(findings.lines[0].cells["set"].summary.mean, rel=1e-5)
    assert [row["published"] for row in rows] == ["0.9", "0.8", "0.7", ""]
    runs = list(csv.DictReader(io.StringIO(table.runs_csv(findings))))
    assert len(runs) == len(findings.results)
    assert (runs[0]["seconds"], runs[0]["peak_gb"], runs[0]["test_normal"]) == ("90", "0.5", "30")


def test_without_a_publication_there_is_no_column_for_it(findings):
    rows = {name: replace(row, paper={}) for name, row in findings.study.rows.items()}
    text = table.markdown(replace(findings, study=replace(findings.study, rows=rows)))
    assert "published" not in text
    assert "| AUROC | Set, here |\n| --- | --- |\n" in text
    assert "published" in table.markdown(findings)


def test_a_caveat_names_the_rows_it_is_true_of(tmp_path):
    cheat = {"source": "real", "detector": {"caveats": ["chosen by test labels"]}}
    text = table.markdown(
        read_findings(small_study(), {Key("fair", "set", 0): write_run(tmp_path / "b", 1.0, **cheat)}, {})
    )
    assert "† Fair: chosen by test labels" in text
    assert table.TWIN not in text


def test_a_cell_says_how_many_runs_it_is_of(tmp_path):
    only = read_findings(small_study(), {Key("good", "set", 0): write_run(tmp_path / "r", 1.0)}, {})
    assert table.words(only.lines[0].cells["set"]).endswith("] ×1")
    assert table.words(only.lines[1].cells["set"]) == "–"
