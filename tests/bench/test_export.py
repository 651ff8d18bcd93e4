"""`bench --section export`: a row for each detector, or why it has no export; runs that are there are not trained."""

import json
from pathlib import Path

import pytest
from exported_run import trained

from anomaly_lab.bench import command, export
from anomaly_lab.types import UserError


@pytest.mark.slow
def test_a_run_that_is_there_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path)
    words = [f"runs={tmp_path / 'runs'}", "detectors=[pca]"]
    command.main(["--section", "export", "--rounds", "1", "--out", str(tmp_path / "bench.json"), *words])
    (row,) = json.loads((tmp_path / "bench.json").read_text())["exports"]
    assert row["detector"] == "pca"
    assert max(row["differences"].values()) < 1e-5
    assert row["bytes"] > 1000
    assert set(row["images_per_second"]) == {"torch", "onnxruntime"}
    assert len(list((tmp_path / "runs" / "pca_headct").iterdir())) == 1
    assert "pca" in capsys.readouterr().out


def test_a_detector_without_an_export_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object) -> None:
        raise UserError("it cannot be exported: a search")

    monkeypatch.setattr(export, "export_run", refused)
    (tmp_path / "anogan_headct" / "run").mkdir(parents=True)
    (tmp_path / "anogan_headct" / "run" / "metrics.json").write_text("{}")
    export.main(tmp_path / "out.json", [f"runs={tmp_path}", "detectors=[anogan]"], rounds=1)
    assert json.loads((tmp_path / "out.json").read_text())["exports"][0]["why_not"].endswith("a search")
    assert "anogan" in capsys.readouterr().out
