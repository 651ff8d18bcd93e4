"""The hand-written loop of HQ-AnoGAN does the framework's work, and what is made of the times."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from toys import Iterations, ToyData, train

from anomaly_lab.bench import command, hq
from anomaly_lab.bench.hq import BareStyleGAN
from anomaly_lab.callbacks.randomness import Randomness

SMALL = ["data.patch_size=[32,32]", "data.batch_size=4", "detector.width=2", "detector.channel_cap=4",
         "detector.latent_dim=4", "detector.encoder_width=2", "detector.gan_iterations=5", "trainer.precision=32-true",
         "detector.encoder_iterations=1", "detector.samples=4"]  # fmt: skip


@pytest.fixture(scope="module")
def settings() -> DictConfig:
    return hq.settings(SMALL)


def test_its_weights_are_the_trainers(settings: DictConfig, pictures: Tensor, tmp_path: Path) -> None:
    """After five iterations, on the same mini-batches and random numbers; with both penalties, and ADA adapted once."""
    loop = BareStyleGAN(settings, "fp32")
    loop.detector.augmentation.p.fill_(0.5)
    detector, first = copy.deepcopy(loop.detector), copy.deepcopy(loop.detector.state_dict())
    train(detector, ToyData(pictures), tmp_path)
    batches, trainer = Iterations(loop.detector, pictures, 5, batch_size=4), SimpleNamespace(global_rank=0)
    for i in range(5):
        loop.detector.iterations_done = i
        Randomness(0).on_train_batch_start(trainer, loop.detector, None, i)
        loop.iteration(batches[i]["image"][0], i)
    expected = detector.state_dict()
    assert float(expected["augmentation.p"]) != 0.5
    for name, value in loop.detector.state_dict().items():
        if name.startswith(("generator", "discriminator", "averages", "augmentation")):
            torch.testing.assert_close(value, expected[name], msg=name)
        if name.startswith(("generator.synthesis", "discriminator")) and name.endswith("weight"):
            assert not torch.equal(value, first[name]), name


def test_reduced_precision_is_the_steps_alone(settings: DictConfig, pictures: Tensor) -> None:
    weights = {}
    for precision in ("fp32", "bf16"):
        loop = BareStyleGAN(settings, precision)
        loop.step(pictures[:4])
        weights[precision] = loop.d.state_dict()
    assert {value.dtype for value in weights["bf16"].values()} == {torch.float32}
    assert any(not torch.equal(value, weights["bf16"][key]) for key, value in weights["fp32"].items())


def test_the_section_measures_every_part_and_says_what_it_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hq, "SCORED", 4)
    out = tmp_path / "deep" / "bench.json"
    command.main(["--section", "hq", "--rounds", "1", "--out", str(out), *SMALL])
    written = json.loads(out.read_text())
    assert written["seconds"].keys() == {hq.TRAINER, hq.BARE, "hq: R1 step", "hq: path length step", "hq: score",
                                         *(f"{hq.WHOLE} {how}" for how in
                                           ("fp32", "bf16", "without mixing", "without ADA"))}  # fmt: skip
    assert all(len(values) == 1 and values[0] > 0 for values in written["raw"].values())
    assert {"hq: Trainer over bare loop", "hq: ADA, % of a gan step"} < written["ratios"].keys()
    assert written["speeds"].keys() == {"hq: score"}
    assert "images/s" in capsys.readouterr().out


def test_costs_by_hand() -> None:
    step = hq.WHOLE
    seconds = {hq.TRAINER: 3.0, hq.BARE: 2.0, f"{step} fp32": 0.4, f"{step} bf16": 0.2, f"{step} without mixing": 0.3,
               f"{step} without ADA": 0.38, "hq: R1 step": 0.64, "hq: path length step": 0.8}  # fmt: skip
    assert hq.ratios(seconds) == pytest.approx({
        "hq: Trainer over bare loop": 1.5, "bf16 over fp32, hq: gan step": 2.0, "hq: R1, every 16, % of a gan step": 10,
        "hq: path length, every 4, % of a gan step": 50, "hq: style mixing, % of a gan step": 25,
        "hq: ADA, % of a gan step": 5,
    })  # fmt: skip
    assert hq.ratios({}) == hq.speeds({}) == {}
