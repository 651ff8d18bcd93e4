"""A place with runs: repeats of one method, another one, one that was stopped, one that is damaged."""

from pathlib import Path

import pytest
from dashboard_runs import add_run
from study_runs import keep_pictures

from anomaly_lab.experiment.run_folder import write_json


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "runs"
    for seed in range(3):
        keep_pictures(add_run(place, f"vae_set/{seed}", 1.0, seed))
    keep_pictures(add_run(place, "vae_set/wide", 1.5, 0, width=16))
    (add_run(place, "pca_set/a", 0.5, 0, source="real") / "report.html").write_text("<title>PCA</title>")
    add_run(place, "pca_set/stopped", 0.5, 1, finished=None)
    damaged = add_run(place, "pca_set/damaged", 0.5, 2)
    (damaged / "provenance.json").write_text('{"seed": ')
    write_json(place / "evaluated.json", {})
    return place
