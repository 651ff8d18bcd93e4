"""The hand-written loop does the framework's work, step by step: only then do their times compare."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from toys import Iterations, ToyData, train

from anomaly_lab.bench.bare_loop import BareLoop
from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.experiment import config

WORDS = ["budget=smoke", "data.patch_size=[32,32]", "detector.width=4", "detector.latent_dim=8", "detector.n_critic=2",
         "detector.gan_iterations=2", "detector.encoder_iterations=2"]  # fmt: skip


@pytest.fixture(scope="module")
def settings() -> DictConfig:
    return config.load("fanogan_headct", WORDS)


def moved(loop: BareLoop, before: dict[str, Tensor]) -> set[str]:
    """Networks of which a weight changed; batch norm's statistics follow every forward pass."""
    after = loop.detector.named_parameters()
    return {key.split(".")[0] for key, weight in after if not torch.equal(weight, before[key])}


def test_its_weights_are_the_trainers(settings: DictConfig, pictures: Tensor, tmp_path: Path) -> None:
    """Two iterations of both phases on the same mini-batches and random numbers."""
    loop = BareLoop(settings, "fp32")
    detector = copy.deepcopy(loop.detector)
    train(detector, ToyData(pictures), tmp_path)
    batches, trainer = Iterations(loop.detector, pictures, 4, batch_size=4), SimpleNamespace(global_rank=0)
    for i, step in enumerate((loop.gan, loop.gan, loop.encoder, loop.encoder)):
        loop.detector.iterations_done = i
        Randomness(0).on_train_batch_start(trainer, loop.detector, None, i)
        step(batches[i]["image"])
    expected = detector.state_dict()
    assert moved(BareLoop(settings, "fp32"), expected) >= {"generator", "critic", "encoder"}
    for name, value in loop.detector.state_dict().items():
        if name != "iteration":
            torch.testing.assert_close(value, expected[name], msg=name)


@pytest.mark.parametrize(
    ("step", "networks"),
    [("gan", {"generator", "critic"}), ("encoder", {"encoder"}), ("distance", {"critic"}), ("penalty", {"critic"})],
)
def test_each_step_moves_its_networks(settings: DictConfig, pictures: Tensor, step: str, networks: set[str]) -> None:
    loop = BareLoop(settings, "fp32")
    before = copy.deepcopy(loop.detector.state_dict())
    batch: Any = pictures[:4] if step in ("distance", "penalty") else pictures[:8].view(2, 4, 1, 32, 32)
    getattr(loop, step)(batch)
    assert moved(loop, before) == networks
    assert all(network.training for network in (loop.g, loop.c, loop.e))


def test_reduced_precision_is_the_steps_alone(settings: DictConfig, pictures: Tensor) -> None:
    weights = {}
    for precision in ("fp32", "bf16"):
        loop = BareLoop(settings, precision)
        loop.distance(pictures[:4])
        weights[precision] = loop.c.state_dict()
        assert {value.dtype for value in weights[precision].values()} == {torch.float32}
    assert any(not torch.equal(value, weights["bf16"][key]) for key, value in weights["fp32"].items())
