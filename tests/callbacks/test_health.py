"""What the watch over a GAN says of generators and discriminators that are known to be ill, or well."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from toys import smooth

from anomaly_lab.callbacks.health import Health
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.evaluation.scoring import to_arrays
from anomaly_lab.types import Batch, Phase, Prediction, UserError

TRAIN, HELD_OUT = smooth(24, seed=0), smooth(6, seed=1)


class Data:
    """Rows 0 to 5 are held out."""

    def __init__(self, held_out: Tensor = HELD_OUT) -> None:
        self.splits = {"train": TRAIN, "val": held_out}
        self.rows = {"val": np.arange(len(held_out))}

    def images(self, split: str, at_most: int) -> Iterator[Tensor]:
        if len(self.splits[split]):
            yield from self.splits[split][:at_most].split(5)


class Known(Detector):
    """Draws what it is told to, and finds an image as real as it is told to."""

    networks = ("generator", "other")

    def __init__(self, fakes: Tensor | None, discriminator_output: dict[float, float] | None = None) -> None:
        super().__init__()
        self.generator, self.other = nn.Linear(1, 1), nn.Linear(1, 1)
        self.fakes, self.said = fakes, discriminator_output

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("gan", 5, ("generator",)),)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return ()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        return None if self.fakes is None else self.fakes[:n]

    def discriminator_output(self, image: Tensor) -> Tensor | None:
        if self.said is None:
            return None
        known = torch.cat([TRAIN, HELD_OUT] + ([] if self.fakes is None else [self.fakes]))
        kinds = torch.tensor([0.0] * len(TRAIN) + [1.0] * len(HELD_OUT) + [2.0] * (len(known) - 30))
        which = (known[None] == image[:, None]).flatten(2).all(2).float().argmax(1)
        return torch.tensor([self.said[kind] for kind in kinds[which].tolist()])

    def predict(self, image: Tensor) -> Prediction:
        return Prediction(torch.zeros(len(image)))


def alone(data: Data | None = None) -> Any:
    """The Trainer of a single process."""
    return SimpleNamespace(datamodule=data or Data(), strategy=SimpleNamespace(broadcast=lambda value: value))


def epoch(detector: Detector, data: Data | None = None) -> dict[str, float]:
    """The terms of an epoch."""
    trainer, health = alone(data), Health()
    health.on_fit_start(trainer, detector)
    health.on_validation_epoch_end(trainer, detector)
    return detector.flush()


def ended(run: Path, detector: Detector, batches: list[tuple[Prediction, Batch]] | None = None) -> dict[str, Any]:
    """The facts at the end."""
    (run / "provenance.json").write_text('{"budget": "laptop"}')
    data: Any = Data()
    trainer: Any = SimpleNamespace(datamodule=data)
    health = Health()
    health.on_fit_start(trainer, detector)
    parts = [
        {"row": batch["row"].numpy(), **health.scored_columns(data, batch, to_arrays(prediction))}
        for prediction, batch in batches or []
    ]
    scored = {key: np.concatenate([part[key] for part in parts]) for key in (parts[0] if parts else {})}
    health.on_scored(run, data, detector, scored)
    facts = json.loads((run / "provenance.json").read_text())
    assert facts["budget"] == "laptop"
    found: dict[str, Any] = facts.get("health", {})
    return found


def test_a_sound_generator_and_a_discriminator_that_cannot_tell() -> None:
    terms = epoch(Known(smooth(24, seed=2), {0.0: 0.3, 1.0: 0.3, 2.0: 0.3}))
    assert terms["health/diversity"] == pytest.approx(1, abs=0.15)
    assert terms["health/real_above_fake"] == 0.5
    assert terms["health/train_above_held_out"] == 0.5
    assert terms["health/overfitting"] == 0


def test_training_images_that_are_all_alike_have_no_diversity_to_compare_with() -> None:
    data = Data()
    data.splits["train"] = TRAIN[:1].repeat(24, 1, 1, 1)
    assert "health/diversity" not in epoch(Known(smooth(24, seed=2)), data)


def test_a_discriminator_that_has_learnt_its_images_by_heart() -> None:
    terms = epoch(Known(smooth(24, seed=2), {0.0: 2.0, 1.0: -1.0, 2.0: -2.0}))
    assert terms["health/real_above_fake"] == 1
    assert terms["health/train_above_held_out"] == 1
    assert terms["health/overfitting"] == pytest.approx(3 / 4)


def test_of_a_detector_that_has_diverged_nothing_is_said() -> None:
    """`Record`, which writes these terms, ends the training in one line; an AUROC of NaN would be a traceback."""
    assert "health/diversity" not in epoch(Known(smooth(24, seed=2) * math.nan))
    assert set(epoch(Known(smooth(24, seed=2), {0.0: math.nan, 1.0: 0.0, 2.0: 0.0}))) == {"health/diversity"}


def test_only_what_a_detector_has_is_said() -> None:
    assert epoch(Known(None)) == {}
    assert set(epoch(Known(None, {0.0: 1.0, 1.0: 0.0}))) == {"health/train_above_held_out"}
    assert set(epoch(Known(smooth(24, seed=2)))) == {"health/diversity"}
    nothing_held_out = epoch(Known(smooth(24, seed=2), {0.0: 1.0, 2.0: 0.0}), Data(torch.zeros(0)))
    assert set(nothing_held_out) == {"health/diversity", "health/real_above_fake"}


def test_the_first_process_says_whether_anything_has_changed() -> None:
    """Machines round otherwise, and the means of two processes must be of the same terms."""
    detector, health, trainer = Known(smooth(24, seed=2)), Health(), alone()
    health.on_fit_start(trainer, detector)
    health.on_validation_epoch_end(trainer, detector)
    theirs = dict(health.state_dict()["last"])
    detector.flush()
    detector.fakes = detector.fakes * (1 + 1e-6)
    trainer.strategy.broadcast = lambda value: theirs
    health.on_validation_epoch_end(trainer, detector)
    assert detector.flush() == {}


def test_an_epoch_in_which_nothing_changed_has_no_term_also_after_a_resume() -> None:
    detector, health = Known(smooth(24, seed=2)), Health()
    trainer = alone()
    health.on_fit_start(trainer, detector)
    health.on_validation_epoch_end(trainer, detector)
    assert set(detector.flush()) == {"health/diversity"}
    health.on_validation_epoch_end(trainer, detector)
    assert detector.flush() == {}
    resumed = Health()
    resumed.on_fit_start(trainer, detector)
    resumed.load_state_dict(health.state_dict())
    resumed.on_validation_epoch_end(trainer, detector)
    assert detector.flush() == {}
    detector.fakes = smooth(24, seed=3)
    resumed.on_validation_epoch_end(trainer, detector)
    assert set(detector.flush()) == {"health/diversity"}


@pytest.mark.parametrize(("contrast", "collapsed"), [(1.0, False), (0.5, False), (0.3, True), (0.0, True)])
def test_the_alarm_goes_off_when_samples_are_alike(tmp_path: Path, contrast: float, collapsed: bool) -> None:
    """The training images themselves, each drawn nearer to their mean."""
    facts = ended(tmp_path, Known(TRAIN.mean(0) + contrast * (TRAIN - TRAIN.mean(0))))
    assert facts["diversity"] == pytest.approx(contrast, abs=1e-4)
    assert facts["collapsed"] is collapsed


def test_quality_tells_good_samples_from_bad_ones_and_names_its_network(tmp_path: Path) -> None:
    same, alike, noise = (ended(tmp_path, Known(x)) for x in (TRAIN, smooth(24, seed=2), torch.randn(24, 1, 32, 32)))
    assert same["fid"] == pytest.approx(0, abs=1e-3 * noise["fid"])
    assert same["fid"] < alike["fid"] < noise["fid"]
    assert same["kid"] < 0.1 * noise["kid"]
    assert alike["kid"] < 0.5 * noise["kid"]
    assert (same["features"], same["images"]) == ("SqueezeNet 1.0, random weights", 24)


def test_copies_of_held_out_normals_alone_are_judged(tmp_path: Path) -> None:
    image = torch.cat([HELD_OUT, smooth(3, seed=5)])
    copy = image + 0.5
    copy[:3] = image[:3]
    rows = torch.arange(9)
    batches = [
        (Prediction(torch.zeros(len(i)), None, copy[i]), Batch(image=image[i], row=rows[i]))
        for i in torch.arange(9).split(4)
    ]
    facts = ended(tmp_path, Known(None), batches)
    assert facts["held_out"] == 6
    assert facts["reconstruction_error"] == pytest.approx(0.25 / 2, rel=1e-5)
    assert 0.5 < facts["ssim"] < 1
    perfect = [(Prediction(torch.zeros(6), None, image[:6]), Batch(image=image[:6], row=rows[:6]))]
    assert ended(tmp_path, Known(None), perfect)["ssim"] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(4, 16, 16), (16, 5)])
def test_of_what_is_too_thin_for_ssim_the_error_alone_is_measured(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = torch.rand(6, 1, *shape)
    batch = [(Prediction(torch.zeros(6), None, image + 0.5), Batch(image=image, row=torch.arange(6)))]
    facts = ended(tmp_path, Known(None), batch)
    assert "ssim" not in facts
    assert facts["reconstruction_error"] == pytest.approx(0.25, rel=1e-5)


def test_a_method_that_is_no_gan_leaves_no_facts(tmp_path: Path) -> None:
    assert ended(tmp_path, Known(None)) == {}


def test_watching_draws_no_random_number_of_the_trainings(tmp_path: Path) -> None:
    detector = Known(smooth(24, seed=2), {0.0: 0.0, 1.0: 1.0, 2.0: 2.0})
    before = torch.get_rng_state()
    epoch(detector)
    ended(tmp_path, detector)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_missing_file_of_weights_is_said_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Health(features=str(tmp_path / "none.pth"))
    with pytest.raises(ValueError, match="at least 2"):
        Health(samples=1)
