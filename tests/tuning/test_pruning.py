"""Trainings are watched at quarters of their last phase, and end as they would unwatched."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from data.conftest import write_headct
from pipeline.conftest import settings

from anomaly_lab.detectors.kde import KDE
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.pipeline import engine
from anomaly_lab.tuning.pruning import Watch


class EnoughError(Exception):
    pass


def weights(run: Path) -> dict[str, torch.Tensor]:
    last = max((run / "checkpoints").glob("*.ckpt"), key=lambda path: path.name)
    return torch.load(last, weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    "rule", [ScoreRule(), pytest.param(ScoreRule("map", standardise="place", features=True), marks=pytest.mark.slow)]
)
def test_a_watched_training_is_the_same_and_is_looked_at_in_its_last_phase(rule: ScoreRule, tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    config = settings(tmp_path, "data.epoch_length=2", "detector.gan_iterations=4", "detector.encoder_iterations=8")
    seen: list[tuple[int, float]] = []
    watched = engine.train(config, watchers=[Watch(rule, at_most=4, report=lambda *told: seen.append(told))])
    plain = engine.train(config, watchers=[])
    assert [percent for percent, _ in seen] == [25, 50, 75]
    assert all(0 <= auroc <= 1 for _, auroc in seen)
    for key, value in weights(plain).items():
        assert torch.equal(value, weights(watched)[key]), key


def test_a_method_that_has_gathered_but_not_learnt_is_not_judged() -> None:
    """KDE learns in the last iteration of its only phase; before, its scores are of other weights or of none."""
    detector = KDE(patch_size=(32, 32), samples=400, batch_size=4)
    detector.gather(torch.rand(200, 1, 32, 32) - 0.5)
    detector.iterations_done = 50
    assert not detector.ready
    normals = SimpleNamespace(images=lambda *_: iter([torch.rand(20, 1, 32, 32) - 0.5]))
    trainer: Any = SimpleNamespace(datamodule=normals)
    Watch(report=lambda *_: pytest.fail("judged")).on_train_epoch_end(trainer, detector)


def test_what_the_report_raises_ends_the_training(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    config = settings(tmp_path, "data.epoch_length=2", "detector.gan_iterations=4", "detector.encoder_iterations=8")

    def give_up(percent: int, auroc: float) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        engine.train(config, watchers=[Watch(report=give_up)])
    (run,) = (tmp_path / "runs").glob("*/*")
    assert not (run / "scores.csv").exists()
