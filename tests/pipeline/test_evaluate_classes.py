"""A run with labels: its classes are scored, judged and kept, row by row those of the data; others keep nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from anomaly_lab.data.datamodule import PatchDataModule, StoreOptions, Twin
from anomaly_lab.data.datasets.sixray import CATEGORIES, SIXray
from anomaly_lab.data.splitting.splits import Split
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.classes import ClassTable
from anomaly_lab.evaluation.map_score import MapScore
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.config import Evaluation, ScoreRule
from anomaly_lab.experiment.record import read_metrics
from anomaly_lab.experiment.run_folder import write_json
from anomaly_lab.metrics.classification import Judged, most_probable
from anomaly_lab.pipeline.evaluate import CLASS_CASES, evaluate_run
from anomaly_lab.pipeline.training import score_all
from anomaly_lab.reports.record import read_run
from anomaly_lab.reports.run_report import write_report
from anomaly_lab.types import Phase, Prediction, UserError


class Brightness(Detector):
    """Tells K classes apart by the mean and the spread of the pixels."""

    networks = ("heads",)
    supervised = True

    def __init__(self, classes: int, task: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.heads = nn.Linear(2, classes)
        self.heads.weight.data = torch.randn(classes, 2, generator=generator) * 4
        nn.init.zeros_(self.heads.bias)
        self.task = task

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("heads", 1, ("heads",), cases="all"),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (SGD(self.heads.parameters(), 0.1),)

    def heads_step(self, batches: Tensor, targets: Tensor) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def predict(self, image: Tensor) -> Prediction:
        flat = image.flatten(1)
        logits = self.heads(torch.stack([flat.mean(1), flat.std(1)], 1))
        probabilities = logits.softmax(1) if self.task == "multiclass" else logits.sigmoid()
        score = 1 - probabilities[:, 0] if self.task == "multiclass" else probabilities.amax(1)
        return Prediction(score, image.abs().mean(1, keepdim=True), probabilities=probabilities)


class OneClass(Brightness):
    """The same scores without classes."""

    supervised = False

    def predict(self, image: Tensor) -> Prediction:
        return super().predict(image)._replace(probabilities=None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stores and twins of all tests lie."""
    return tmp_path_factory.mktemp("store")


def bags(place: Path, *classes: str, target_type: str = "multiclass") -> PatchDataModule:
    """The twin of SIXray: of exactly one of `classes`, or of any number of its items."""
    settings = {"root": "none", "source": "twin", "patch_size": (16, 16), "in_channels": 3, "twin": Twin(size=300)}
    told = {"supervision": "labels", "classes": classes, "target_type": target_type}
    data = SIXray(**settings, **told, split=Split(val_fraction=0.3), store=StoreOptions(folder=str(place)))
    data.setup()
    return data


def one_of(place: Path) -> PatchDataModule:
    return bags(place, "normal", "Gun", "Knife")


def run_of(folder: Path, data: PatchDataModule, detector: Detector, **evaluation: object) -> Path:
    folder.mkdir()
    scored = score_all(data, detector)
    assert scored is not None
    evaluate_run(folder, Evaluation(replicates=20, **evaluation), data, detector, scored)
    return folder


@pytest.mark.parametrize("name", ["multiclass", "multilabel"])
def test_the_classes_of_a_run_are_those_of_its_data(tmp_path: Path, place: Path, name: str) -> None:
    data = one_of(place) if name == "multiclass" else bags(place, *CATEGORIES, target_type=name)
    detector = Brightness(len(data.classes), data.target_type)
    run = run_of(tmp_path / "run", data, detector)
    table, scores = ClassTable.read(run / "classes.csv"), Scores.read(run / "scores.csv")
    assert (table.id, table.split, table.classes) == (scores.id, scores.split, data.classes)
    rows = np.concatenate(list(data.scored.values()))
    assert table.target.tolist() == data.targets[rows].tolist()
    probability = detector.score(data.store.batch(rows)).probabilities.double().numpy()
    assert table.probability == pytest.approx(probability, abs=1e-6)
    metrics = read_metrics(run)["classes"]
    test = scores.of("test")
    called = most_probable(table.probability[test])
    figures = Judged(table.target[test], table.probability[test], called, name == "multiclass").measure()
    value = metrics["mean_average_precision"]["value"]
    assert value == pytest.approx(figures["mean_average_precision"].item(), nan_ok=True)
    assert metrics["training"] == dict(zip(data.classes, data.class_counts()[:, 0].tolist(), strict=True))
    assert (scores.label[scores.of("val")] == 1).any()  # labelled validation cases stand beside the normals
    assert scores.normals.sum() == len(data.rows["val"])
    assert read_metrics(run)["threshold"]["num_normals"] == len(data.rows["val"])


def test_a_score_of_a_map_is_no_probability_though_there_are_some(tmp_path: Path, place: Path, monkeypatch) -> None:
    """Nor is its threshold one: where few normals set it, it may lie above 1."""
    monkeypatch.setattr(Brightness, "scores_probabilities", True)
    data, detector = one_of(place), Brightness(3, "multiclass")
    told = []
    for rescored in (None, MapScore(ScoreRule("map"))):
        detector.rescored = rescored
        run = run_of(tmp_path / f"run{len(told)}", data, detector)
        told.append(read_metrics(run)["threshold"]["probabilities"])
        assert read_metrics(run)["classes"]
    assert told == [True, False]


def test_boxes_of_the_maps_are_compared_with_those_of_the_data(tmp_path: Path, place: Path) -> None:
    run = run_of(tmp_path / "run", bags(place, *CATEGORIES, target_type="multilabel"), Brightness(5, "multilabel"))
    found = read_metrics(run)["pixels"]["boxes"]
    assert found["known"] > 0
    assert 0 <= found["average_precision"] <= 1
    assert 0 <= found["pointing"] <= 1
    write_json(run / "provenance.json", {"finished": "2030"})
    assert f"against {found['known']} boxes of known lesions" in write_report(run).read_text()


def test_pictures_of_each_class_are_kept_and_shown(tmp_path: Path, place: Path) -> None:
    data = one_of(place)
    run = run_of(tmp_path / "run", data, Brightness(3, "multiclass"))
    table = ClassTable.read(run / "classes.csv")
    with np.load(run / "samples" / "gallery.npz") as stored:
        kept = [
            (id, kind) for id, kind in zip(stored["id"].tolist(), stored["kind"].tolist(), strict=True) if ":" in kind
        ]
    called = most_probable(table.probability)
    assert {kind.partition(":")[0] for _, kind in kept} <= {"found", "missed", "mistaken"}
    for id, kind in kept:
        outcome, k = kind.split(":")
        row = table.id.index(id)
        assert table.split[row] == "test"
        expected = {"found": (1, True), "missed": (1, False), "mistaken": (0, True)}[outcome]
        assert (table.target[row, int(k)], called[row, int(k)]) == expected
        assert sum(each == kind for _, each in kept) <= CLASS_CASES
    assert kept
    write_json(run / "provenance.json", {"finished": "2030"})
    page = write_report(run).read_text()
    assert "Pictures: normal" in page
    assert len(read_run(run).gallery[kept[0][1]]) <= CLASS_CASES


def test_patches_become_cases_with_classes(tmp_path: Path, place: Path) -> None:
    data = one_of(place)
    run = run_of(tmp_path / "run", data, Brightness(3, "multiclass"), case_score="max")
    table, scores = ClassTable.read(run / "classes.csv"), Scores.read(run / "scores.csv")
    assert table.id == scores.id
    assert table.target[:, 0].tolist() == (1 - scores.label).tolist()


def test_a_detector_without_classes_keeps_none_and_its_files_are_those_of_its_scores(
    tmp_path: Path, place: Path
) -> None:
    data = one_of(place)
    plain = run_of(tmp_path / "plain", data, OneClass(3, "multiclass"))
    assert not (plain / "classes.csv").exists()
    metrics = json.loads((plain / "metrics.json").read_text())
    assert "classes" not in metrics
    labelled = run_of(tmp_path / "labelled", data, Brightness(3, "multiclass"))
    assert (plain / "scores.csv").read_bytes() == (labelled / "scores.csv").read_bytes()
    theirs = json.loads((labelled / "metrics.json").read_text())
    del theirs["classes"], theirs["pixels"]["boxes"]
    assert metrics == theirs


def test_a_probability_that_is_none_is_one_line(tmp_path: Path, place: Path) -> None:
    data, detector = one_of(place), Brightness(3, "multiclass")
    detector.heads.weight.data[1] = np.nan
    detector.predict = lambda image: Brightness.predict(detector, image)._replace(anomaly_score=image.mean((1, 2, 3)))
    with pytest.raises(UserError, match=r"^classes: the probability of \w+ for .* is nan, .*diverged"):
        run_of(tmp_path / "run", data, detector)


def test_no_normal_at_all_leaves_out_threshold_baselines_and_verdict(tmp_path: Path, place: Path) -> None:
    data = bags(place, "Gun", "Knife")
    assert not len(data.rows["train"])
    run = run_of(tmp_path / "run", data, Brightness(2, "multiclass"))
    metrics = read_metrics(run)
    assert metrics["threshold"]["value"] is None
    assert metrics["baselines"] == {}
    assert metrics["classes"]["accuracy"]["value"] is not None
    assert list(metrics["classes"]["anomalous"]) in (["validation"], [])
    write_json(run / "provenance.json", {"finished": "2030"})
    assert 'id="classes"' in write_report(run).read_text()
