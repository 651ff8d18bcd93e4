"""Speed and memory of f-AnoGAN's road, A/B interleaved in one run: medians, their ratios, JSON and a table.

Timings are noisy and belong to one machine: read the ratios, and look at the load that is printed with them.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from anomaly_lab.bench import data as stores
from anomaly_lab.bench import peer, search
from anomaly_lab.bench.bare_loop import BareLoop
from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.batches import IterationSampler, TrainingImages
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.fanogan import FAnoGAN
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import run_folder
from anomaly_lab.experiment.checkpoint_files import CheckpointFiles
from anomaly_lab.pipeline import training
from anomaly_lab.types import Batch

Times = dict[str, list[float]]
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def main(arguments: list[str]) -> None:
    """Measure `fanogan_headct` on its twin, by default at the laptop budget; any `key=value` changes it.

    Args:
        arguments: `--out FILE`, `--rounds N`, `--only MEASURE`, `--peer NAME`, overrides.
    """
    parser = argparse.ArgumentParser("bench", description=main.__doc__)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--only", choices=[*MEASURES], help="one of the measures instead of all")
    parser.add_argument("--peer", choices=peer.known(), help="GANomaly's training beside a peer's instead of all")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    asked = parser.parse_args(arguments)
    settings = configuration.load("fanogan_headct", ["budget=laptop", "data.source=twin", *asked.overrides])
    out: Path = asked.out or Path(f"runs/bench_{asked.peer}.json" if asked.peer else "runs/bench.json")
    facts = run_folder.provenance() | {"load_before": os.getloadavg()[0], "rounds": asked.rounds}
    if asked.peer:
        times, about = peer.training(asked.peer, asked.rounds)
        facts["peer"] = about
    else:
        times = _measured([asked.only] if asked.only else [*MEASURES], settings, asked.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    summary: dict[str, Any] = {"seconds": medians, "ratios": _ratios(medians), "speeds": _speeds(settings, medians)}
    if not asked.peer:  # it trains elsewhere
        summary["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    out.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(out, facts | summary | {"raw": times, "config": configuration.show(settings)})
    _print(summary, facts, out)


def _measured(names: list[str], settings: DictConfig, rounds: int) -> Times:
    data: PatchDataModule = configuration.build(settings.data)
    data.prepare_data()
    times: Times = {}
    for name in names:
        print(f"{name} …", file=sys.stderr)
        times |= MEASURES[name](settings, data, rounds)
    return times


def _interleaved(contenders: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Seconds of each contender, A B C A B C …, after one uncounted round."""
    times: Times = {name: [] for name in contenders}
    for counted in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if counted:
                times[name].append(time.perf_counter() - start)
    return times


def _loading(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """64 mini-batches of float32 images, with and without augmentation."""
    schedule = configuration.build(settings.detector).schedule

    def draw(augmentation: Any) -> None:
        images = TrainingImages(data.store, data.rows["train"], augmentation, seed=0)
        for draws in IterationSampler(schedule, range(64 // schedule[0].minibatches + 1), data.batch_size):
            images[draws]

    plain, augmented = (lambda: draw(None)), (lambda: draw(data.augmentation))
    return _interleaved({"load": plain, "load augmented": augmented}, rounds)


def _steps(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """One iteration of each phase on ready tensors, by hand, in both precisions; and the parts of a critic step."""
    loops = {name: BareLoop(settings, name) for name in PRECISIONS}
    n_critic, size = settings.detector.n_critic, tuple(settings.data.patch_size)
    images = torch.rand(n_critic, data.batch_size, settings.data.in_channels, *size) * 2 - 1
    contenders: dict[str, Callable[[], object]] = {}
    for name, loop in loops.items():
        contenders[f"gan step {name}"] = partial(loop.gan, images)
        contenders[f"encoder step {name}"] = partial(loop.encoder, images[:1])
        contenders[f"critic without penalty {name}"] = partial(loop.distance, images[0])
    contenders["gradient penalty fp32"] = partial(loops["fp32"].penalty, images[0])
    return _interleaved(contenders, rounds)


def _scoring(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """256 images through `score`, in batches of `scoring_batch_size`."""
    detector: FAnoGAN = configuration.build(settings.detector)
    images = torch.rand(256, settings.data.in_channels, *settings.data.patch_size) * 2 - 1
    parts = torch.split(images, data.scoring_batch_size)
    return _interleaved({"score": lambda: [detector.score(Batch(image=part)) for part in parts]}, rounds)


def _whole_training(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """One epoch of each phase: the Trainer with every callback against a bare loop over the same batches.

    In processor seconds, for other jobs move the wall's by more than is looked for; with OMP_NUM_THREADS=1, for waiting
    threads count too. Epochs of 40 iterations: what an epoch's end costs (checkpoint, validation, samples) weighs more
    than in a run.
    """
    settings = settings.copy()
    length = settings.data.epoch_length = min(40, settings.data.epoch_length)
    settings.detector.gan_iterations = settings.detector.encoder_iterations = length
    clock = _Clock()

    def framework() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = run_folder.create(folder, "bench", ("bench",))
            run_folder.write_atomic(run / "config.yaml", configuration.show(settings))
            road, detector = training.construct(settings)
            callbacks = [configuration.build(node) for node in settings.callbacks.values()]
            epochs = detector.schedule.epochs_left(0, road.epoch_length)
            every = [Randomness(0), *callbacks, clock]
            trainer = training.trainer_for(settings.trainer, run, every, epochs, plugins=[CheckpointFiles()])
            trainer.fit(detector, datamodule=road)
            for callback in callbacks:
                if isinstance(callback, RunCallback):
                    callback.on_run_end(run)

    def bare() -> None:
        loop = BareLoop(settings, "bf16" if settings.trainer.precision == "bf16-mixed" else "fp32")
        images = TrainingImages(data.store, data.rows["train"], data.augmentation, seed=0)
        start = time.process_time()
        for draws in IterationSampler(loop.detector.schedule, range(2 * length), data.batch_size):
            batches = images[draws]["image"]
            loop.gan(batches) if len(batches) > 1 else loop.encoder(batches)
        clock.bare.append(time.process_time() - start)

    _interleaved({"framework": framework, "bare": bare}, rounds)
    return {"training by Trainer": clock.framework[1:], "training by bare loop": clock.bare[1:]}


def _start_up(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """`--help`, and the imports of a training, as processes of their own."""

    def run(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)

    return _interleaved(
        {"--help": run("-m", "anomaly_lab", "--help"), "imports": run("-c", "import anomaly_lab.pipeline.engine")},
        rounds,
    )


class _Clock(pl.Callback):
    """Processor seconds from the first batch to the end of the training, without building the objects."""

    def __init__(self) -> None:
        self.framework: list[float] = []
        self.bare: list[float] = []
        self._start = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.process_time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.framework.append(time.process_time() - self._start)


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    found = {}
    if "training by Trainer" in seconds:
        found["framework overhead, %"] = 100 * (seconds["training by Trainer"] / seconds["training by bare loop"] - 1)
    for ours, theirs in stores.PAIRS + search.PAIRS:
        if ours in seconds:
            found[f"{theirs} over {ours}"] = seconds[theirs] / seconds[ours]
    for part in ("gan step", "encoder step", "critic without penalty"):
        if f"{part} bf16" in seconds:
            found[f"bf16 over fp32, {part}"] = seconds[f"{part} fp32"] / seconds[f"{part} bf16"]
    return found | peer.ratios(seconds)


def _speeds(settings: DictConfig, seconds: dict[str, float]) -> dict[str, float]:
    """Images a second."""
    minibatches = (64 // settings.detector.n_critic + 1) * settings.detector.n_critic
    images = minibatches * settings.data.batch_size
    counted = {"load": images, "load augmented": images, "score": 256}
    return {name: n / seconds[name] for name, n in counted.items() if name in seconds} | peer.speeds(seconds)


def _print(summary: dict[str, Any], facts: dict[str, Any], out: Path) -> None:
    table = Table("what", "median", title=f"{facts['machine']['cpu']}, {facts['threads']} threads")
    for name, value in summary["seconds"].items():
        table.add_row(name, f"{value:.2f}" if name.endswith("GB") else f"{value:.4f} s")
    for name, value in summary["speeds"].items():
        table.add_row(name, f"{value:,.{0 if value >= 100 else 1}f} images/s")
    for name, value in summary["ratios"].items():
        table.add_row(name, f"{value:.2f}")
    if "peak_gb" in summary:
        table.add_row("peak memory", f"{summary['peak_gb']:.2f} GB")
    console = Console()
    console.print(table)
    if facts["load_before"] > 0.5:
        console.print(f"the machine was busy before (load {facts['load_before']:.1f}): trust the ratios at most")
    console.print(f"all rounds: {out}")


MEASURES: dict[str, Callable[[DictConfig, PatchDataModule, int], Times]] = {
    "loading": _loading,
    "steps": _steps,
    "scoring": _scoring,
    "training": _whole_training,
    "start-up": _start_up,
    "search": lambda settings, data, rounds: search.latent_search(rounds),
    "store": lambda settings, data, rounds: stores.store_and_batches(rounds),
    "lists": lambda settings, data, rounds: stores.million_rows(),
    "memory": lambda settings, data, rounds: stores.memory(),
}
