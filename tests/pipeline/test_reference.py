"""Thresholds by cross-fitted normals: of detectors that are fitted in seconds, refused for others before training."""

import copy
import json
from pathlib import Path

import pytest
import torch
from data.conftest import write_headct
from pipeline.conftest import settings
from pipeline.conftest import words as words_of

from anomaly_lab import catalogue, detectors
from anomaly_lab.detectors.families.gathering import GatheringDetector
from anomaly_lab.detectors.families.places import PlaceDetector
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment import config
from anomaly_lab.pipeline import engine, run_commands
from anomaly_lab.types import UserError

WORDS = ("evaluation.replicates=20", "callbacks.wandb=null", "evaluation.reference=crossfit")


def kde(base: Path, *words: str):
    small = [word for word in words_of(base) if not word.startswith("detector.")]
    return config.load("kde_headct", [*small, *WORDS, *words])


FITTED_AT_ONCE = {
    name: {"weights": "random"} if issubclass(kind, PlaceDetector) else {}
    for name, kind in catalogue.classes("anomaly_lab.detectors").items()
    if issubclass(kind, GatheringDetector) and kind is not detectors.PoolSVM
}


@pytest.mark.parametrize("name", FITTED_AT_ONCE)
def test_a_refitted_detector_is_one_fitted_to_these_images_alone(name: str) -> None:
    images = torch.randn(12, 1, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    more = {"dimensions": 8} if name == "PaDiM" else {}  # which features are kept is drawn, once
    first = getattr(detectors, name)(patch_size=(32, 32), samples=6, **FITTED_AT_ONCE[name], **more)
    second = copy.deepcopy(first)
    first.gather(images[:6])
    first.learn()
    state = torch.random.get_rng_state()
    assert first.refits
    refitted = first.refitted([images[6:]])
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        second.gather(images[6:])
        second.learn()
    batch = {"image": images}
    assert torch.equal(refitted.score(batch).anomaly_score, second.score(batch).anomaly_score)
    assert not torch.equal(refitted.score(batch).anomaly_score, first.score(batch).anomaly_score)


def test_what_was_trained_cannot_be_refitted() -> None:
    assert not detectors.KDE(patch_size=(32, 32), samples=4, features="code").refits
    assert not detectors.PoolSVM(patch_size=(32, 32), width=4, latent_dim=8, samples=64, batch_size=8).refits


def test_a_run_goes_by_all_its_normals_and_can_be_judged_again(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    run = engine.train(kde(tmp_path))
    scores, metrics = Scores.read(run / "scores.csv"), json.loads((run / "metrics.json").read_text())
    fitted = int(scores.of("crossfit").sum())
    assert fitted > 2
    assert metrics["threshold"]["num_cross_fitted"] == fitted
    assert metrics["threshold"]["num_normals"] == fitted + metrics["counts"]["val"]["normal"]
    assert f"{fitted} of them cross-fitted" in (run / "report.html").read_text()
    again = run_commands.evaluate(str(run), ["scores=recorded"])
    assert json.loads((again.parent / "metrics.json").read_text())["threshold"] == metrics["threshold"]
    with pytest.raises(UserError, match="reference=validation: the recorded scores"):
        run_commands.evaluate(str(run), ["scores=recorded", "evaluation.reference=validation"])
    run_commands.evaluate(str(run), ["evaluation.reference=validation"])
    assert not Scores.read(run / "scores.csv").of("crossfit").any()


def test_a_fit_draws_and_augments_its_normals_as_the_training_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each normal once and as it is would be another method: what it never saw would score higher than new normals."""
    write_headct(tmp_path / "headct")
    gathered: list[list[torch.Tensor]] = []
    learn, gather = detectors.KDE.learn, detectors.KDE.gather

    def noted(self: detectors.KDE, image: torch.Tensor) -> None:
        gathered[-1].append(image)
        gather(self, image)

    def learnt(self: detectors.KDE) -> None:
        gathered.append([])
        learn(self)

    monkeypatch.setattr(detectors.KDE, "gather", noted)
    monkeypatch.setattr(detectors.KDE, "learn", learnt)
    gathered.append([])
    engine.train(kde(tmp_path, "data.augment={flip: 0.5, degrees: 0.0, shift: 0.0, gamma: 1.0}", "detector.samples=16"))
    training, *refits = [torch.cat(images) for images in gathered if images]
    assert len(refits) > 1
    assert {images.shape for images in refits} == {training.shape}
    for images in (training, *refits):  # of sixteen draws from a few pictures, some show one both ways
        assert any(torch.equal(one.flip(-1), other) for one in images for other in images)


def test_a_gan_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    with pytest.raises(UserError, match="FAnoGAN cannot be fitted again in seconds"):
        engine.train(settings(tmp_path, "evaluation.reference=crossfit"))
    assert not (tmp_path / "runs").exists()
