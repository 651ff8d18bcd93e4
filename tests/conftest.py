"""Fixtures of many tests: a few small pictures, and a Trainer that feeds a detector with them."""

import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
from browser import chromium, open_page  # noqa: F401 – fixtures
from hypothesis import settings
from torch import Tensor
from torch.utils.data import DataLoader
from toys import Fit, Iterations, smooth

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.detectors.families.fake_pool import DrawsFromPool, filled
from anomaly_lab.experiment import trust

settings.register_profile("untimed", deadline=None)  # no test asserts a time: a busy machine is no fault
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; what tests start inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def trusted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An experiment may name classes of the test's own module."""
    monkeypatch.setenv(trust.ENVIRONMENT, f"{request.module.__name__},study_runs")


@pytest.fixture
def trusted_toys(trusted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `trusted`, and any class will do for any section: the test is about how sections are composed."""
    monkeypatch.setattr(trust, "BASES", dict.fromkeys(trust.BASES, "builtins.object"))


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Train a detector for some iterations (all of its schedule unless said otherwise) on images [N, C, H, W].

    One that wants a fake pool and has none gets the images upside down.
    """

    def run(
        detector: Detector,
        images: Tensor,
        iterations: int | None = None,
        batch_size: int = 4,
        precision: str = "32",
    ) -> Detector:
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
        )
        if isinstance(detector, DrawsFromPool) and detector.pool is None:
            detector.pool = filled(tmp_path / "fakepool", images.flip(2))
        length = iterations or detector.schedule.iterations
        trainer.fit(detector, DataLoader(Iterations(detector, images, length, batch_size), batch_size=None))
        return detector

    return run


@pytest.fixture
def pictures() -> Tensor:
    """Twelve smooth grey pictures, [12, 1, 32, 32] in [-1, 1]."""
    return smooth(12, seed=0)
