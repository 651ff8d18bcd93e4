"""The command `bench`: time f-AnoGAN from loading to scoring; report medians and ratios as JSON and as a table.

The variants of a measure are run in turn (A B C A B C …), so that a change of load hits all of them. Timings are noisy
and hold for one machine only: read the ratios, and check the load that is printed with them.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from anomaly_lab.bench import dashboard, export, gpu, hq, many_pictures, peer, search, serve
from anomaly_lab.bench import data as stores
from anomaly_lab.bench.bare_loop import BareLoop
from anomaly_lab.bench.turns import Times, interleaved
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

SECTIONS: dict[str, Callable[[Path, Sequence[str]], None]] = {  # parts with a measurement of their own
    "dashboard": dashboard.main,  # one page over 10 000 runs
    "export": export.main,  # every detector with and without torch
    "gpu": gpu.main,  # a quarter of an hour
    "serve": serve.main,  # a server under load
}
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def main(arguments: list[str]) -> None:
    """Benchmark `fanogan_headct` on its synthetic twin, at the laptop budget unless overridden.

    Args:
        arguments: `--out FILE`, `--rounds N`, `--only MEASURE`, `--peer NAME`, `--section gpu`,
            or another of SECTIONS, and overrides `key=value` of the configuration.

    Examples:
        From a shell::

            python -m anomaly_lab bench --only scoring --rounds 3 data.batch_size=8
    """
    description = (main.__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser("bench", description=description)
    parser.add_argument("--out", type=Path, help="file for the results (JSON); default: runs/bench.json")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one warm-up round (default: 5)")
    parser.add_argument("--only", choices=[*MEASURES], help="run this measure instead of all")
    parser.add_argument("--peer", choices=peer.known(), help="compare GANomaly's training with this library's instead")
    parser.add_argument("--section", choices=["hq", *SECTIONS], help="measure one part of the house instead")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the configuration")
    options = parser.parse_args(arguments)
    if options.section in SECTIONS:
        place = options.out or Path(f"runs/bench_{options.section}.json")
        SECTIONS[options.section](place, options.overrides)
        return
    if options.section:
        settings = hq.settings(options.overrides)
    else:
        settings = configuration.load("fanogan_headct", ["budget=laptop", "data.source=twin", *options.overrides])
    instead = options.section or options.peer
    out: Path = options.out or Path(f"runs/bench_{instead}.json" if instead else "runs/bench.json")
    facts = run_folder.provenance() | {"load_before": os.getloadavg()[0], "rounds": options.rounds}
    if options.peer:
        times, details = peer.training(options.peer, options.rounds)
        facts["peer"] = details
    elif options.section:
        times = hq.measure(settings, options.rounds)
    else:
        times = _measure([options.only] if options.only else [*MEASURES], settings, options.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    summary: dict[str, Any] = {"seconds": medians, "ratios": _ratios(medians), "speeds": _speeds(settings, medians)}
    if not options.peer:  # a peer comparison trains in other processes
        summary["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    out.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(out, facts | summary | {"raw": times, "config": configuration.show(settings)})
    _print(summary, facts, out)


def _measure(names: list[str], settings: DictConfig, rounds: int) -> Times:
    data: PatchDataModule = configuration.build(settings.data)
    data.prepare_data()
    times: Times = {}
    for name in names:
        print(f"{name} …", file=sys.stderr)
        times |= MEASURES[name](settings, data, rounds)
    return times


def _loading(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """Time loading 64 mini-batches of float32 images, with and without augmentation."""
    schedule = configuration.build(settings.detector).schedule

    def draw(augmentation: Any) -> None:
        images = TrainingImages(data.store, data.rows["train"], augmentation, seed=0)
        for draws in IterationSampler(schedule, range(64 // schedule[0].minibatches + 1), data.batch_size):
            images[draws]

    plain, augmented = (lambda: draw(None)), (lambda: draw(data.augmentation))
    return interleaved({"load": plain, "load augmented": augmented}, rounds)


def _steps(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """Time the bare loop on tensors in memory, in fp32 and bf16: an iteration of each phase, parts of a critic step."""
    loops = {name: BareLoop(settings, name) for name in PRECISIONS}
    n_critic, size = settings.detector.n_critic, tuple(settings.data.patch_size)
    images = torch.rand(n_critic, data.batch_size, settings.data.in_channels, *size) * 2 - 1
    contenders: dict[str, Callable[[], object]] = {}
    for name, loop in loops.items():
        contenders[f"gan step {name}"] = partial(loop.gan, images)
        contenders[f"encoder step {name}"] = partial(loop.encoder, images[:1])
        contenders[f"critic without penalty {name}"] = partial(loop.distance, images[0])
    contenders["gradient penalty fp32"] = partial(loops["fp32"].penalty, images[0])
    return interleaved(contenders, rounds)


def _scoring(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """Time scoring 256 images in batches of `scoring_batch_size`."""
    detector: FAnoGAN = configuration.build(settings.detector)
    images = torch.rand(256, settings.data.in_channels, *settings.data.patch_size) * 2 - 1
    parts = torch.split(images, data.scoring_batch_size)
    return interleaved({"score": lambda: [detector.score(Batch(image=part)) for part in parts]}, rounds)


def _whole_training(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """Time one epoch of each phase: the Trainer with all callbacks against the bare loop on the same batches.

    Times are CPU seconds, because other jobs disturb the wall clock by more than the difference of interest. Run with
    OMP_NUM_THREADS=1, because waiting threads use CPU time as well. Epochs have at most 40 iterations, so the work at
    the end of an epoch (checkpoint, validation, samples) weighs more than in a real run.
    """
    settings = settings.copy()
    length = settings.data.epoch_length = min(40, settings.data.epoch_length)
    settings.detector.gan_iterations = settings.detector.encoder_iterations = length
    clock = _Clock()

    def framework() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            with run_folder.create(run) as work:
                run_folder.write_atomic(work / "config.yaml", configuration.show(settings))
            datamodule, detector = training.construct(settings)
            callbacks = [configuration.build(node) for node in settings.callbacks.values()]
            epochs = detector.schedule.epochs_left(0, datamodule.epoch_length)
            all_callbacks = [Randomness(0), *callbacks, clock]
            trainer = training.trainer_for(settings.trainer, run, all_callbacks, epochs, plugins=[CheckpointFiles()])
            trainer.fit(detector, datamodule=datamodule)
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

    interleaved({"framework": framework, "bare": bare}, rounds)
    return {"training by Trainer": clock.framework[1:], "training by bare loop": clock.bare[1:]}


def _start_up(settings: DictConfig, data: PatchDataModule, rounds: int) -> Times:
    """Time `--help` and the imports of the training engine, each in a fresh process."""

    def run(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)

    return interleaved(
        {"--help": run("-m", "anomaly_lab", "--help"), "imports": run("-c", "import anomaly_lab.pipeline.engine")},
        rounds,
    )


class _Clock(pl.Callback):
    """CPU seconds from the first batch to the end of training; building the objects is not included."""

    def __init__(self) -> None:
        self.framework: list[float] = []
        self.bare: list[float] = []
        self._start = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.process_time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.framework.append(time.process_time() - self._start)


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    ratios = {}
    if "training by Trainer" in seconds:
        ratios["framework overhead, %"] = 100 * (seconds["training by Trainer"] / seconds["training by bare loop"] - 1)
    for ours, theirs in stores.PAIRS + search.PAIRS + many_pictures.PAIRS:
        if ours in seconds:
            ratios[f"{theirs} over {ours}"] = seconds[theirs] / seconds[ours]
    for part in ("gan step", "encoder step", "critic without penalty"):
        if f"{part} bf16" in seconds:
            ratios[f"bf16 over fp32, {part}"] = seconds[f"{part} fp32"] / seconds[f"{part} bf16"]
    return ratios | peer.ratios(seconds) | hq.ratios(seconds)


def _speeds(settings: DictConfig, seconds: dict[str, float]) -> dict[str, float]:
    """Return images per second of the measures that process images."""
    n_critic = settings.detector.get("n_critic", 1)
    images = (64 // n_critic + 1) * n_critic * settings.data.batch_size
    num_images = {"load": images, "load augmented": images, "score": 256}
    num_images |= dict.fromkeys((name for pair in many_pictures.PAIRS for name in pair), many_pictures.BATCH)
    found = {name: n / seconds[name] for name, n in num_images.items() if name in seconds}
    return found | peer.speeds(seconds) | hq.speeds(seconds)


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
        console.print(
            f"The machine was busy when the benchmark started (load average {facts['load_before']:.1f}): "
            "compare the ratios only, not the seconds."
        )
    console.print(f"Times of all rounds: {out}")


MEASURES: dict[str, Callable[[DictConfig, PatchDataModule, int], Times]] = {
    "loading": _loading,
    "steps": _steps,
    "scoring": _scoring,
    "training": _whole_training,
    "start-up": _start_up,
    "search": lambda settings, data, rounds: search.latent_search(rounds),
    "store": lambda settings, data, rounds: stores.store_and_batches(rounds),
    "lists": lambda settings, data, rounds: stores.million_rows(),
    "pictures": lambda settings, data, rounds: many_pictures.many_pictures(rounds),
    "memory": lambda settings, data, rounds: stores.memory(),
}
