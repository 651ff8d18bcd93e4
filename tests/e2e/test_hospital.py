"""A hospital sends its export, broken files and all; both ways to score it are killed half-way, go on, and agree."""

from pathlib import Path

import pytest
from data.conftest import write_headct
from e2e import hospital
from e2e.hospital import Client, predict, table_of, write_export
from pipeline.conftest import settings

from anomaly_lab.pipeline import engine

FILES = 60


@pytest.mark.slow
def test_an_export_is_scored_by_predict_and_by_serve_through_a_kill_to_the_same_table(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    words = ("detector.gan_iterations=2", "detector.encoder_iterations=2", "callbacks.wandb=null",
             "evaluation.replicates=20", "callbacks.health=null", "detector.latent_dim=4")  # fmt: skip
    run = engine.train(settings(tmp_path, *words))
    export = tmp_path / "export"
    broken = write_export(export, FILES)
    assert set(broken.values()) <= set(hospital.KINDS)

    single = "data.store.scoring_batch_size=1"
    assert predict(tmp_path, run, export, tmp_path / "whole", single) == 3  # some were not scored
    assert predict(tmp_path, run, export, tmp_path / "killed", single, kill_at=FILES // 2) == -9
    assert predict(tmp_path, run, export, tmp_path / "killed", single) == 3
    whole = table_of(tmp_path / "whole")
    assert (tmp_path / "killed" / "scores.csv").read_bytes() == (tmp_path / "whole" / "scores.csv").read_bytes()
    assert len(whole) == FILES - len(broken)

    client = Client(tmp_path, run, export)
    client.start()
    client.send(FILES // 2)
    client.kill()
    assert len(client.left()) == 1
    client.start()
    assert len(client.left()) == 1  # its own: that of the killed one is gone
    client.send()
    assert client.rows == whole
    assert set(client.refused) == set(broken)
    assert {status for status, _ in client.refused.values()} <= {400, 422}
    assert client.measure()["anomaly_lab_scoring_restarts"] == 0
    client.stop()
    assert client.left() == []
    said = (tmp_path / "said.txt").read_text()
    assert "Traceback" not in said
    for name in (*broken, "Marker"):  # nor does a server name files or patients
        assert not any(
            name in line for line in said.splitlines() if "not scored" not in line and "left out" not in line
        )
