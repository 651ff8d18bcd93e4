"""What decides weights and scores: the objects of an experiment, and the scoring of every case once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data.conftest import write_headct
from pipeline.conftest import settings
from toys import smooth

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.detectors.fanogan import FAnoGAN
from anomaly_lab.detectors.pca import PCA
from anomaly_lab.evaluation.map_score import MapScore
from anomaly_lab.experiment import config
from anomaly_lab.experiment.config import ScoreRule
from anomaly_lab.pipeline import engine, training
from anomaly_lab.types import Batch, Prediction, UserError


def test_clipping_and_accumulation_are_the_detectors(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    wanted = settings(tmp_path, "trainer.gradient_clip_val=0.5", "trainer.accumulate_grad_batches=2")
    _, detector = training.construct(wanted)
    assert (detector.clip_norm, detector.accumulate) == (0.5, 2)


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    one, same, other = (training.construct(settings(tmp_path, f"seed={seed}"))[1].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_a_detector_without_a_step_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_headct(tmp_path / "headct")
    monkeypatch.delattr(FAnoGAN, "encoder_step")
    with pytest.raises(UserError, match="FAnoGAN lacks the method encoder_step"):
        training.construct(settings(tmp_path))


def test_a_supervised_detector_without_labels_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    words = ["budget=smoke", "data.source=twin", f"data.store.folder={tmp_path}", "data.supervision=none"]
    with pytest.raises(UserError, match=r"Classifier learns from labelled anomalies: set data\.supervision=labels"):
        training.construct(config.load("classifier_headct", words))
    assert not list(tmp_path.iterdir())


class Rows:
    """A data set of six rows, 0 and 1 of them validation normals, scored in batches of its own choosing."""

    def __init__(self, *batches: list[int], masks: bool = False) -> None:
        self.rows = self.scored = {"val": np.array([0, 1]), "test": np.array([2, 3, 4, 5])}
        self.batches, self.masks = batches, masks

    def test_dataloader(self) -> list[Batch]:
        return [self._batch(rows) for rows in self.batches]

    def _batch(self, rows: list[int]) -> Batch:
        row = torch.tensor(rows)
        batch = Batch(row=row, image=row.float().reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2))
        if self.masks:
            batch["mask"] = batch["image"] > 3
        return batch


class Echo:
    """Scores an image by its grey value, whose graph it keeps."""

    def __init__(self) -> None:
        self.weight = torch.ones((), requires_grad=True)

    def to(self, device: Any) -> None:
        pass

    def score(self, batch: Batch) -> Prediction:
        image = batch["image"] * self.weight
        return Prediction(image.mean((1, 2, 3)) / 10, image, image)


class Doubled(RunCallback):
    """Adds a column."""

    def scored_columns(self, data: Any, batch: Any, scored: Any) -> Any:
        return {"doubled": 2 * scored.score}


@pytest.mark.parametrize("masks", [False, True])
def test_every_case_is_scored_once_and_found_by_its_row(masks: bool) -> None:
    seen: list[tuple[int, int]] = []
    data: Any = Rows([5, 2], [4], [1, 0, 3], masks=masks)
    detector: Any = Echo()
    scored = training.score_all(data, detector, [Doubled()], progress=lambda *counts: seen.append(counts))
    assert scored is not None
    assert scored["row"].tolist() == [0, 1, 2, 3, 4, 5]
    assert scored["score"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert np.array_equal(scored["doubled"], 2 * scored["score"])
    assert ("mask" in scored) == ("anomaly_map" in scored) == masks
    if masks:
        assert scored["anomaly_map"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert scored["mask"][:, 0, 0, 0].tolist() == [False] * 4 + [True] * 2
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("batches", [([0, 1, 2], [3, 4]), ([0, 1, 2, 3], [3, 4, 5])])
def test_a_case_scored_twice_or_never_is_an_error(batches: tuple[list[int], ...]) -> None:
    data: Any = Rows(*batches)
    detector: Any = Echo()
    with pytest.raises(RuntimeError, match="exactly once"):
        training.score_all(data, detector)


def test_a_process_evaluates_where_the_training_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [training.device_for(name).type for name in ("auto", "gpu", "cpu")] == ["cuda", "cuda", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends, "mps", SimpleNamespace(is_available=lambda: False))
    assert training.device_for("auto").type == "cpu"


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps"])
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(
    accelerator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends, "mps", SimpleNamespace(is_available=lambda: False))
    write_headct(tmp_path / "headct")
    with pytest.raises(UserError, match=rf"trainer\.accelerator={accelerator}: torch finds none on this machine"):
        engine.train(settings(tmp_path, f"trainer.accelerator={accelerator}", "callbacks.wandb=null"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "gpu", "expected"),
    [
        ([], True, True),
        ([], False, None),
        (["trainer.benchmark=false"], True, False),
        (["trainer.deterministic=true"], True, None),
    ],
)
def test_convolutions_are_tried_out_on_a_gpu(
    words: list[str], gpu: bool, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert training._benchmark(config.load("ganomaly_headct", ["budget=smoke", *words]).trainer) is expected


@pytest.mark.parametrize(("said", "expected"), [("never", None), ("networks", {})])
def test_a_detector_is_compiled_where_it_was_asked_for(said: str, expected: dict[str, Any] | None) -> None:
    _, detector = training.construct(config.load("ganomaly_headct", ["budget=smoke", f"compile={said}"]))
    assert detector.compilation == expected


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (ScoreRule(smooth=2.0, standardise="place", sign="bright"),
         r"^score\.smooth=2\.0 score\.sign=bright score\.standardise=place: no effect on the score; set "
         r"score\.from=map, or score\.smooth=0\.0 score\.sign=both score\.standardise=none$"),
        (ScoreRule(features=True), r"^score\.features=true: .* set score\.from=map, or score\.features=false$"),
        (ScoreRule("map", share=0.5), r"set score\.features=true, or score\.share=0\.05"),
        (ScoreRule("map", pool="max", top=0.2), r"set score\.pool=top, or score\.top=0\.01"),
        (ScoreRule("map", normals="validation"), r"set score\.standardise=place, or score\.normals=training"),
    ],
)  # fmt: skip
def test_settings_of_a_score_without_effect_are_refused(rule: ScoreRule, said: str) -> None:
    detector: Any = SimpleNamespace(settings=SimpleNamespace(in_channels=1, patch_size=(8, 8)))
    with pytest.raises(UserError, match=said):
        training.refuse_rule(rule, SimpleNamespace(patch_sampling=None), detector)  # type: ignore[arg-type]
    training.refuse_rule(ScoreRule(), SimpleNamespace(patch_sampling=None), detector)  # type: ignore[arg-type]


@pytest.mark.parametrize(("patients", "said"), [("abc", ""), ("aab", "of only 2 patients, so by its own patient's")])
def test_a_validation_normal_is_not_judged_by_pictures_of_its_own_patient(patients: str, said: str) -> None:
    rule = ScoreRule("map", standardise="place", normals="validation")
    store = SimpleNamespace(index=SimpleNamespace(columns={"patient": ["z", *patients]}))
    data: Any = SimpleNamespace(patch_sampling=None, store=store, rows={"val": np.array([1, 2, 3])})
    detector = PCA((32, 32), components=2, samples=8, batch_size=8)
    detector.gather(smooth(8, seed=1))
    detector.learn()
    if not said:
        training.refuse_rule(rule, data, detector.eval())
        return
    with pytest.raises(UserError, match=said):
        training.refuse_rule(rule, data, detector.eval())


def test_validation_normals_say_how_large_the_terms_of_a_score_are() -> None:
    split = {"train": smooth(8, seed=1), "val": smooth(5, seed=2) * 0.5}
    data = SimpleNamespace(patch_sampling=None, images=lambda of, at_most=None: iter([split[of]]))
    detector = PCA((32, 32), components=2, samples=8, batch_size=8)
    detector.gather(split["train"])
    detector.learn()
    rule = ScoreRule("map", pool="mean", features=True)
    found = training.score_by(rule, data, detector.eval())  # type: ignore[arg-type]
    detector.rescored = None
    by_hand, without = (
        MapScore.fit(rule, detector.score, [split["train"]], held_out=others) for others in ([split["val"]], [])
    )
    assert found is not None
    assert torch.equal(found.deviation, by_hand.deviation)
    assert not torch.allclose(found.deviation, without.deviation, rtol=0.05)
