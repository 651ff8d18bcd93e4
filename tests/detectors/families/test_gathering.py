"""The last phase of methods that are fitted at once: who is gathered, and when the method is fitted."""

import pytest
import torch
from torch import Tensor
from toys import Fit

from anomaly_lab.detectors.families.gathering import GatheringDetector
from anomaly_lab.types import Prediction


class Mean(GatheringDetector):
    """Far from the mean of the normals is anomalous."""

    networks = ("mean",)

    def __init__(self, samples: int = 6, batch_size: int = 4, size: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.mean = torch.nn.Module()
        self.mean.register_buffer("value", torch.zeros(()))
        self.seen: list[int] = []
        self.fits = 0

    def gather(self, image: Tensor) -> None:
        self.seen.append(len(image))
        self.mean.value += image.mean() * len(image)

    def learn(self) -> None:
        self.fits += 1
        self.mean.value /= sum(self.seen)

    def predict(self, image: Tensor) -> Prediction:
        return Prediction((image.flatten(1).mean(1) - self.mean.value).abs())


def test_as_many_batches_as_the_samples_need_and_one_fit(fit: Fit) -> None:
    detector = fit(Mean(), torch.ones(4, 1, 2, 2) / 2)
    assert (detector.seen, detector.fits, detector.ready) == ([4, 4], 1, True)
    assert detector.mean.value == pytest.approx(0.5)


def test_it_is_not_ready_before_it_is_fitted() -> None:
    detector = Mean()
    detector.iterations_done = 1
    assert not detector.ready


def test_another_one_is_fitted_to_other_images_alone() -> None:
    other = Mean().refitted(torch.split(torch.arange(6.0).view(6, 1, 1, 1) / 10, 4))
    assert (other.seen, other.fits) == ([4, 2], 1)
    assert other.mean.value == pytest.approx(0.25)


def test_with_a_phase_before_it_is_no_matter_of_seconds() -> None:
    class Slow(Mean):
        def phases(self):  # type: ignore[no-untyped-def]
            return (*super().phases(), *super().phases())

    assert Mean().refits
    assert not Slow().refits
