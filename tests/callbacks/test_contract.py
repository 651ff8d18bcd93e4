"""What every callback promises: it says whether it can change scores, and keeps its word."""

import importlib
import pkgutil
from collections.abc import Iterator
from inspect import isabstract, signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from data.conftest import write_headct
from discovery import undescribed
from pipeline.conftest import settings

from anomaly_lab import callbacks
from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.experiment import run_folder
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.experiment.config import show
from anomaly_lab.pipeline import training

SMALL = ("detector.gan_iterations=4", "detector.encoder_iterations=2", "data.epoch_length=2", "detector.n_critic=2",
         "trainer.precision=32-true", "callbacks.wandb=null", "detector.latent_dim=4")  # fmt: skip


def _classes() -> Iterator[type[pl.Callback]]:
    for module in pkgutil.iter_modules(callbacks.__path__, f"{callbacks.__name__}."):
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, type) and issubclass(found, pl.Callback) and found.__module__ == module.name:
                yield found


CLASSES = [found for found in _classes() if found is not RunCallback and not isabstract(found)]
HARMLESS = [found for found in CLASSES if not getattr(found, "changes_scores", True)]


def test_there_are_callbacks_of_both_kinds() -> None:
    assert len(CLASSES) > len(HARMLESS) > 0


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_says_whether_it_can_change_scores(kind: type[pl.Callback]) -> None:
    assert issubclass(kind, RunCallback)
    assert isinstance(vars(kind).get("changes_scores"), bool), "say it in the class itself: changes_scores = …"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_argument_has_a_type_a_description_and_a_default(kind: type[pl.Callback]) -> None:
    """So that `callbacks.<name>._target_=…` is enough to switch it on."""
    assert not undescribed(kind), kind.__name__
    assert not [name for name, argument in signature(kind).parameters.items() if argument.default is argument.empty]


def outcome(folder: Path, *extra: pl.Callback) -> dict[str, Any]:
    """Weights and scores of a short training, with every moment of a run that a callback knows of."""
    if not (folder / "headct").exists():
        write_headct(folder / "headct")
    config = settings(folder, *SMALL)
    data, detector = training.construct(config)
    data.setup()
    run = run_folder.new_place(config.runs, config.name, ("smoke",))
    with run_folder.create(run) as work:
        run_folder.write_atomic(work / "config.yaml", show(config))
    every = [*training.decisive_callbacks(config.seed), *extra]
    epochs = detector.schedule.epochs_left(0, data.epoch_length)
    trainer = training.trainer_for(config.trainer, run, every, epochs, plugins=[CheckpointFiles()])
    trainer.fit(detector, datamodule=data)
    scored = training.score_all(data, detector, every)
    assert scored is not None
    weights = {key: value.clone() for key, value in detector.state_dict().items()}
    for callback in every:
        if isinstance(callback, RunCallback):
            callback.on_scored(run, data, detector, scored)
            callback.on_run_end(run)
    assert all(torch.equal(weights[key], value) for key, value in detector.state_dict().items())
    again = training.score_all(data, detector)
    assert again is not None
    assert np.array_equal(scored["score"], again["score"])
    return weights | {"score": torch.from_numpy(scored["score"])}


def differ(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in one if not torch.equal(one[key], other[key])]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return outcome(tmp_path_factory.mktemp("without"))


@pytest.mark.parametrize("kind", HARMLESS, ids=lambda kind: kind.__name__)
def test_one_that_says_it_cannot_does_not(kind: type[pl.Callback], without: dict[str, Any], tmp_path: Path) -> None:
    made: Any = kind(mode="disabled") if kind.__name__ == "WandB" else kind()
    assert differ(without, outcome(tmp_path, made)) == []


class Draws(RunCallback):
    """Draws a random number of the training's."""

    changes_scores = False

    def on_train_batch_start(self, *_: Any) -> None:
        torch.rand(1)


class Turns(RunCallback):
    """Leaves the score column changed."""

    changes_scores = False

    def scored_columns(self, data: Any, batch: Any, scored: Any) -> Any:
        return {"score": -scored.score}


class Decays(RunCallback):
    """Shrinks the weights when the run is over."""

    changes_scores = False

    def on_scored(self, run: Any, data: Any, detector: Any, scored: Any) -> None:
        with torch.no_grad():
            next(detector.parameters()).mul_(0.5)


@pytest.mark.parametrize("kind", [Draws, Turns, Decays])
def test_one_that_breaks_its_word_is_found_out(
    kind: type[RunCallback], without: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        assert differ(without, outcome(tmp_path, kind())) == []
