"""The estimate of a training's cost: what is measured, and how it is scaled up."""

import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from omegaconf import DictConfig

from anomaly_lab import devices
from anomaly_lab.experiment import config
from anomaly_lab.pipeline import cost

WORDS = ["budget=smoke", "data.patch_size=[32,32]", "data.batch_size=16", "trainer.precision=32-true"]


def settings(name: str = "fanogan_headct", *words: str) -> DictConfig:
    return config.load(name, [*WORDS, *words])


class Machine:
    """Takes `start` seconds for an iteration and `each` for one of its images more; keeps what it was asked."""

    def __init__(self, start: float, each: float) -> None:
        self.start, self.each = start, each
        self.asked: list[tuple[int, tuple[int, int]]] = []

    def __call__(self, settings: DictConfig, detector: Any, begun: int, size: tuple[int, int]) -> float:
        self.asked.append((begun, size))
        minibatches, images = size
        return self.start + self.each * minibatches * images


@pytest.fixture
def fanogan() -> DictConfig:
    lengths = ("detector.gan_iterations=100", "detector.encoder_iterations=50", "detector.n_critic=5")
    return settings("fanogan_headct", *lengths)


def test_quick_iterations_are_measured_whole(fanogan: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(start=0.01, each=0.001)
    monkeypatch.setattr(cost, "_iteration", machine)
    assert cost.phase_seconds(fanogan) == pytest.approx(
        {"gan": 100 * (0.01 + 0.001 * 5 * 16), "encoder": 50 * (0.01 + 0.001 * 16)}
    )
    assert machine.asked == [(1, (5, 2)), (1, (5, 16)), (101, (1, 2)), (101, (1, 16))]


def test_slow_iterations_are_measured_in_part_and_scaled(fanogan: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images take 5 s, which are not spent again, or .3 s: of these six fit into the second that may be spent."""
    machine = Machine(start=0.0, each=0.5)
    monkeypatch.setattr(cost, "_iteration", machine)
    assert cost.phase_seconds(fanogan) == pytest.approx({"gan": 100 * 5 * 16 * 0.5, "encoder": 50 * 16 * 0.5})
    assert machine.asked == [(1, (5, 2)), (101, (1, 2)), (101, (1, 2))]
    machine = Machine(start=0.0, each=0.15)
    monkeypatch.setattr(cost, "_iteration", machine)
    assert cost.phase_seconds(fanogan)["encoder"] == pytest.approx(50 * 16 * 0.15)
    assert machine.asked[-1] == (101, (1, 6))


def test_starting_up_is_not_scaled(fanogan: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first measurement took seconds more on a loaded machine, and 300 s of training were announced as 85 minutes."""
    machine = Machine(start=0.01, each=0.001)

    def cold(*asked: Any) -> float:
        return machine(*asked) + (2.0 if asked[3][1] == 2 and len(machine.asked) % 2 else 0.0)

    monkeypatch.setattr(cost, "_iteration", cold)
    assert cost.phase_seconds(fanogan) == pytest.approx(
        {"gan": 100 * (0.01 + 0.001 * 5 * 2) * 16 / 2, "encoder": 50 * (0.01 + 0.001 * 2) * 16 / 2}
    )


def test_of_two_iterations_the_shorter_counts() -> None:
    """One was held up by 85 s on a loaded machine."""
    clock, now = cost._Clock(), iter([0.0, 90.0, 100.0, 105.0, 200.0, 203.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost.time, "perf_counter", lambda: next(now))
        for i in range(3):
            clock.on_train_batch_start(None, None, None, i)
            clock.on_train_batch_end(None, None, None, None, i)
    assert clock.seconds == 3.0


def test_a_phase_is_measured_after_its_first_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of HQ-AnoGAN's encoder phase maps 100 000 noise vectors, and that of its GAN takes all penalties."""
    machine = Machine(start=0.01, each=0.001)
    monkeypatch.setattr(cost, "_iteration", machine)
    words = ("detector.gan_iterations=1", "detector.encoder_iterations=50")
    cost.phase_costs(settings("fanogan_headct", *words))
    assert [begun for begun, _ in machine.asked] == [0, 0, 2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps what is freed, and is told to give it back")
def test_what_was_measured_takes_no_memory_afterwards() -> None:
    """HQ-AnoGAN's published size takes 9 GB; its laptop training went on with them."""
    process = psutil.Process()
    before = process.memory_info().rss
    held = [torch.ones(16 * 1024) for _ in range(5000)]  # 64 KB each: no pages of their own
    last, held = held[-1], []
    cost._release()
    assert process.memory_info().rss < before + 50e6
    assert last.sum() == 16 * 1024


def test_the_whole_is_the_sum_of_the_phases(fanogan: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_iteration", Machine(start=1.0, each=0.0))
    assert cost.estimated(fanogan).seconds == sum(cost.phase_seconds(fanogan).values())


@pytest.mark.parametrize("name", ["adgan_headct", "deep_svdd_headct", "kde_abmnist", "pool_svm_abmnist"])
def test_every_phase_is_run_once_and_nothing_is_left_behind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fake pool for whoever wants one; neither the data nor its place are asked for."""
    monkeypatch.chdir(tmp_path)
    experiment = settings(name, f"data.root={tmp_path / 'nowhere'}")
    phases = config.build(experiment.detector).schedule
    seconds = cost.phase_seconds(experiment)
    assert [*seconds] == [phase.name for phase in phases]
    assert all(value > 0 for value in seconds.values())
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_around_the_process_changes_nothing(fanogan: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_NAME": "night", "NTASKS": "2", "NNODES": "2", "JOB_ID": "7", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert set(cost.phase_seconds(fanogan)) == {"gan", "encoder"}


@pytest.mark.parametrize("name", ["classifier_headct", "gbad_sixray"])
def test_a_training_on_labels_is_measured(name: str) -> None:
    """One class an image, or any number of them; all phases, the fit of an SVM included."""
    seconds = cost.phase_seconds(settings(name, "data.batch_size=4"))
    assert set(seconds) == ({"classifier"} if name == "classifier_headct" else {"classifier", "bigan", "svm"})
    assert all(value > 0 for value in seconds.values())


def test_operations_are_those_of_the_networks_by_hand() -> None:
    """An encoder: forward, and backward twice as much but for the images, which need no gradient."""
    experiment = settings("deep_svdd_headct", "detector.pretrain_iterations=1", "detector.sphere_iterations=7")
    detector = config.build(experiment.detector)
    forward, first, image = 0.0, 0.0, torch.zeros(1, 1, 32, 32)

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal forward, first
        weight = module.weight.numel()
        places = output[0, 0].numel() if isinstance(module, torch.nn.Conv2d) else 1
        forward += 2 * weight * places
        first = first or 2 * weight * places

    for module in detector.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    detector.score({"image": image})
    found = cost.phase_costs(experiment)[detector.schedule[-1].name].operations
    assert found == pytest.approx(16 * 7 * (3 * forward - first), rel=0.01)


def test_operations_grow_with_images_and_iterations(fanogan: DictConfig) -> None:
    once = cost.phase_costs(fanogan)["gan"].operations
    assert once > 0
    twice = settings(
        "fanogan_headct", "detector.gan_iterations=200", "detector.encoder_iterations=50", "detector.n_critic=5"
    )
    assert cost.phase_costs(twice)["gan"].operations == pytest.approx(2 * once)
    larger = settings("fanogan_headct", "detector.gan_iterations=100", "detector.n_critic=5", "data.batch_size=32")
    assert cost.phase_costs(larger)["gan"].operations == pytest.approx(2 * once)


def test_a_processor_without_bfloat16_is_measured_as_it_trains(
    fanogan: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains in float32; measured in emulated bfloat16, hour-long studies were announced as eleven hours."""
    seen = []
    trainer = cost.pl.Trainer

    def noted(**settings: Any) -> Any:
        seen.append(settings["precision"])
        return trainer(**settings)

    monkeypatch.setattr(cost.pl, "Trainer", noted)
    fanogan.trainer.precision = "bf16-mixed"
    for emulated, expected in ((True, {"32-true"}), (False, {"bf16-mixed"})):
        seen.clear()
        monkeypatch.setattr(devices, "emulates_bfloat16", lambda emulated=emulated: emulated)
        cost.phase_seconds(fanogan)
        assert set(seen) == expected
