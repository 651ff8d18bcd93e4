"""`make bench SECTION=gpu`: what a training does on one GPU, in a quarter of an hour.

Steps per second, share of the peak and of idle time, for four detectors by three precisions; where the images lie;
`torch.compile` and CUDA graphs; several runs on one card; for every detector, whether its steps wait for the host and
whether its scores agree with a processor's. What fails is reported in its row and ends nothing.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from anomaly_lab.callbacks.randomness import Randomness
from anomaly_lab.callbacks.run_callback import RunCallback, changes_scores
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import compose, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment.schema import TARGET, locate
from anomaly_lab.pipeline import training
from anomaly_lab.pipeline.console import quiet_lightning
from anomaly_lab.pipeline.cost import Operations
from anomaly_lab.types import Batch, UserError

Row = dict[str, Any]  # column -> value
DETECTORS = ("fanogan_headct", "ganomaly_headct", "adgan_abmnist", "alad_headct")
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
COMPILED = ("ganomaly_headct", "fanogan_headct")
PLACES: dict[str, list[str]] = {
    "on the GPU": ["data.store.device=always"],
    "on the host": ["data.store.device=never"],
    "on the host, 4 processes": ["data.store.device=never", "data.store.num_workers=4"],
}
PACKED = (1, 2, 4, 8)  # runs at once on one card
PEAKS = {  # dense TFLOP/s by the makers' data sheets: in bf16, and in float32 multiplied as TF32
    "H200": (989, 494),
    "H100": (989, 494),
    "A100": (312, 156),
    "L40S": (362, 183),
}
MINUTES = 15.0
SCORED = 16  # images whose scores are compared
TOLERANCE = 1e-3  # of scores on two devices, as a share of the largest


def main(out: Path, words: Sequence[str] = ()) -> None:
    """Measure on the GPU of this machine, print tables, write all values as JSON.

    Args:
        out: the file.
        words: `key=value` words for all experiments, which are at the paper budget on their synthetic twins.

    Raises:
        UserError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise UserError("bench, section gpu: this machine has no CUDA device that torch can use; nothing was measured")
    with quiet_lightning():
        report(out, torch.device("cuda", 0), words)


def report(
    out: Path, device: torch.device, words: Sequence[str] = (), timed: int = 30, minutes: float = MINUTES
) -> None:
    """Measure all parts on a device.

    Args:
        out: file for the values.
        device: any one; what only a GPU can tell is missing from the tables of another.
        words: `key=value` words for all experiments.
        timed: iterations that are timed in each phase.
        minutes: after which no further row is begun.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    until, console, tables = time.monotonic() + 60 * minutes, Console(), dict[str, list[Row]]()
    words = [f"trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}", "data.source=twin", *words]
    for title, rows in _parts(device, words, timed).items():
        tables[title] = []
        for label, measure in rows.items():
            if time.monotonic() > until:
                tables[title].append({"": label, "result": f"not measured: {minutes:g} minutes are over"})
                continue
            try:
                tables[title] += [{"": label, **row} for row in measure()]
            except Exception as error:
                tables[title].append({"": label, "result": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        console.print(_table(f"{title}, {name}", tables[title]))
    out.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(out, run_folder.provenance() | {"device": name, "tables": tables})
    console.print(f"All values: {out}")


def _parts(device: torch.device, words: Sequence[str], timed: int) -> dict[str, dict[str, Callable[[], list[Row]]]]:
    """Return what is measured, by the titles of tables and the labels of their rows."""

    def speed(experiment: str, *more: str) -> Callable[[], list[Row]]:
        return lambda: speeds(experiment, [*words, *more], device, timed)

    return {
        "Precisions": {
            f"{name} {precision}": speed(name, f"trainer.precision={precision}")
            for name in DETECTORS
            for precision in PRECISIONS
        },
        "Where the images lie": {place: speed(DETECTORS[0], *more) for place, more in PLACES.items()},
        "Every detector": {name: partial(agreement, name, words, device) for name in compose.detectors()},
        "Runs at once": {f"{n}": partial(packed, n, words, device, timed) for n in PACKED},
        "torch.compile": {
            f"{name} {how}": speed(name, f"compile={how}") for name in COMPILED for how in training.COMPILATIONS
        },
    }


def speeds(experiment: str, words: Sequence[str], device: torch.device, timed: int) -> list[Row]:
    """Train an experiment for a few iterations of every phase and return a row for each phase.

    Args:
        experiment: its name.
        words: `key=value` words.
        device: where it trains.
        timed: iterations that are timed.

    Returns:
        phase, steps per second, share of the peak, share of time in which the GPU is idle; None for what is unknown.
    """
    watch = Stopwatch(device, timed)
    with trained(experiment, words, watch.length, [watch]):
        return watch.rows


def agreement(detector: str, words: Sequence[str], device: torch.device) -> list[Row]:
    """Train a detector on a device at the smoke budget; compare its scores there with those of the processor.

    Returns:
        waits: what its steps wait for, or "nothing"; difference: of the scores, as a share of the largest; agree.
    """
    kept = [word for word in words if not word.startswith("budget=")]
    sizes = [*kept, "budget=smoke"]
    if detector == "multi_kd":
        sizes.append("detector.teacher_weights=random")
    waits = Waits(device)
    with trained(f"{detector}_headct", sizes, 3, [waits]) as (model, data):
        image = torch.cat([*data.images("val")])[:SCORED]
        here = model.to(device).score(Batch(image=image.to(device))).anomaly_score.cpu().double()
        there = copy.deepcopy(model).to("cpu").score(Batch(image=image)).anomaly_score.double()
    difference = float((here - there).abs().max() / there.abs().max().clamp_min(1e-12))
    return [{"waits for": waits.found or "nothing", "difference": difference, "agree": difference <= TOLERANCE}]


def packed(n: int, words: Sequence[str], device: torch.device, timed: int) -> list[Row]:
    """Train n runs at once on one device; return the steps per second of all of them in the first phase."""
    with multiprocessing.get_context("spawn").Pool(n) as pool:
        found = pool.starmap(speeds, [(DETECTORS[0], [*words, f"seed={i}"], device, timed) for i in range(n)])
    return [{"steps/s of all": sum(rows[0]["steps/s"] for rows in found)}]


def _changes_training(callback: type) -> bool:
    """Return whether a callback takes part in the training, and not in a choice among validations: there are none."""
    return changes_scores(callback) and (
        not issubclass(callback, RunCallback) or callback.checkpoint_choice is RunCallback.checkpoint_choice
    )


@contextlib.contextmanager
def trained(
    experiment: str, words: Sequence[str], length: int, callbacks: Sequence[pl.Callback]
) -> Iterator[tuple[Detector, PatchDataModule]]:
    """Train `length` iterations of every phase, without validation, checkpoints and record; yield detector and data."""
    config = configuration.load(experiment, ["budget=paper", *words])
    for key in [str(key) for key in config.detector if str(key).endswith("_iterations")]:
        config.detector[key] = length
    for key in {"samples", "normals"} & config.detector.keys():  # a feature bank's
        config.detector[key] = length * config.detector.batch_size
    config.data.epoch_length = 10 * length  # an epoch ends with its phase
    data, detector = training.construct(config)
    detector.load_pretrained()
    data.prepare_data()
    named = [configuration.build(node) for node in config.callbacks.values() if _changes_training(locate(node[TARGET]))]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("checkpoints", "samples"):
            Path(folder, name).mkdir()
        epochs = detector.schedule.epochs_left(0, data.epoch_length)
        watched = [*callbacks, Randomness(config.seed), *named]  # what watches is told first of the end of a step
        trainer = training.trainer_for(config.trainer, Path(folder), watched, epochs, limit_val_batches=0)
        trainer.fit(detector, datamodule=data)
        yield detector, data


class Stopwatch(pl.Callback):
    """Times the iterations of each phase, after some to warm up; looks into one more and counts another's operations.

    Args:
        device: where the training is.
        timed: iterations that are timed.

    Attributes:
        length: iterations of a phase that it takes.
        rows: what `speeds` returns.

    Examples:
        >>> Stopwatch(torch.device("cpu"), timed=3).length
        10
    """

    WARM = 5

    def __init__(self, device: torch.device, timed: int) -> None:
        self.device, self.timed, self.length = device, timed, self.WARM + timed + 2
        self.rows: list[Row] = []
        self._done, self._began, self._seconds, self._busy, self._phase = 0, 0.0, 0.0, 0.0, ""
        self._profile: profile | None = None
        self._counter: Operations | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._done = 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._phase = pl_module.phase.name
        if self._done == self.length - 2:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
            self._profile = profile(activities=activities)
            self._profile.start()
        elif self._done == self.length - 1 and pl_module.compilation is None:
            self._counter = Operations()
            self._counter.__enter__()  # type: ignore[no-untyped-call]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._done += 1
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if self._done in (self.WARM, self.WARM + self.timed):
            self._wait()
            now = time.perf_counter()
            self._began, self._seconds = now, (now - self._began) / self.timed
        elif self._profile is not None:
            self._wait()
            self._profile.stop()
            self._busy = sum(event.self_device_time_total for event in self._profile.key_averages()) / 1e6
            self._profile = None
        if self._done == self.length:
            self._note(pl_module.trainer.precision)

    def _note(self, precision: str) -> None:
        flops = self._counter.total if self._counter is not None else 0
        self._counter, gpu = None, self.device.type == "cuda"
        peak = peak_of(torch.cuda.get_device_name(self.device), precision) if gpu else None
        row: Row = {"phase": self._phase, "steps/s": 1 / self._seconds, "GFLOP/step": flops / 1e9 or None}
        row["of peak"] = flops / self._seconds / peak if peak and flops else None
        row["idle"] = max(0.0, 1 - self._busy / self._seconds) if gpu else None
        self.rows.append(row)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Waits(pl.Callback):
    """Lets torch refuse whatever waits for the GPU within an iteration, after the first of each phase.

    Args:
        device: where the training is; nothing is refused on a processor.

    Attributes:
        found: what would have waited; empty for nothing.

    Examples:
        >>> Waits(torch.device("cpu")).found
        ''
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.found = device, ""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        last = pl_module.iterations_done + 1 == pl_module.schedule.iterations  # a feature bank is fitted on the host
        if batch_idx and not last:
            self._refuse("error")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._refuse("default")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._refuse("default")
        self.found = str(exception)

    def _refuse(self, mode: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_sync_debug_mode(mode)


def peak_of(name: str, precision: str) -> float | None:
    """Return the FLOP/s that a GPU could do at most, by its name; None if it is not known.

    Examples:
        >>> peak_of("NVIDIA H100 80GB HBM3", "bf16-mixed") / 1e12
        989.0
        >>> peak_of("a new one", "32-true") is None
        True
    """
    found = next((peaks for part, peaks in PEAKS.items() if part in name), None)
    return None if found is None else 1e12 * found[0 if precision.startswith("bf16") else 1]


def _table(title: str, rows: Sequence[Row]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(_shown(row.get(key), key) for key in columns))
    return table


def _shown(value: Any, column: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0%}" if column in ("of peak", "idle") else f"{value:.3g}"
    return str(value)
