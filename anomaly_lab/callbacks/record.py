"""The log of a training: metrics.jsonl, from which reports and dashboards are made, and timings.jsonl."""

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.data.datamodule import data_of
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment.record import read_provenance
from anomaly_lab.experiment.regular import regular
from anomaly_lab.experiment.run_folder import append_line, update_provenance, write_atomic
from anomaly_lab.types import Count, UserError


class DivergedError(UserError):
    """A loss or a gradient is no longer finite."""


class Record(RunCallback):
    """Appends the means of the tracked terms to metrics.jsonl and stops the training when one is not finite.

    metrics.jsonl holds nothing that depends on the clock: two runs with the same seed write the same bytes. Images per
    second go to timings.jsonl. A resumed run first removes the lines after its checkpoint.

    Args:
        every: iterations between two lines; the end of an epoch writes a line, too.

    Examples:
        A line of metrics.jsonl::

            {"iteration": 20, "images": 6400, "phase": "gan", "train/critic": -3.1, "train/generator": 0.7}
    """

    changes_scores = False

    def __init__(self, every: Count = 10) -> None:
        self.every = every
        self._clock = 0.0  # time and iteration of the previous line
        self._last_iteration = 0
        self._phase_seconds: dict[str, float] = {}
        self._tracked: dict[str, torch.Tensor] = {}  # of the checkpoint that is resumed from

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        detector = _detector(pl_module)
        for key, values in self._tracked.items():
            detector.tracked[key] = list(values.to(detector.device))
        self._phase_seconds = dict(read_provenance(_folder(trainer)).get("seconds", {}))
        if trainer.is_global_zero:
            for name in ("metrics.jsonl", "timings.jsonl"):
                keep_until(_folder(trainer) / name, detector.iterations_done)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what was tracked and not yet written, which is something in the middle of an epoch only."""
        tracked = _detector(pl_module).tracked
        reduce = trainer.strategy.reduce  # the file is read by all processes
        checkpoint["tracked"] = {key: reduce(torch.stack(values), reduce_op="mean") for key, values in tracked.items()}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._tracked = checkpoint.get("tracked", {})

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock, self._last_iteration = time.perf_counter(), _detector(pl_module).iterations_done

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        detector = _detector(pl_module)
        last_of_epoch = batch_idx + 1 == trainer.num_training_batches
        if detector.iterations_done % self.every == 0 and not last_of_epoch:
            self._write(trainer, detector)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        detector = _detector(pl_module)
        self._write(trainer, detector)
        if trainer.is_global_zero:
            update_provenance(_folder(trainer), seconds=self._phase_seconds)

    def _write(self, trainer: pl.Trainer, detector: Detector) -> None:
        done, schedule = detector.iterations_done, detector.schedule
        phase = schedule.phase_at(done - 1)  # of the iteration just done; the next may belong to another phase
        batch_size = data_of(trainer).batch_size
        drawn = schedule.minibatches_before(done)
        means = _mean_over_ranks(trainer, detector.flush())
        self._refuse_nonfinite(trainer, means, done)
        seconds = time.perf_counter() - self._clock
        self._phase_seconds[phase.name] = self._phase_seconds.get(phase.name, 0.0) + seconds
        speed = (drawn - schedule.minibatches_before(self._last_iteration)) * batch_size / max(seconds, 1e-9)
        self._clock, self._last_iteration = time.perf_counter(), done
        if trainer.is_global_zero:
            head = {"iteration": done, "images": drawn * batch_size, "phase": phase.name}
            timing = {"iteration": done, "images_per_second": round(speed, 2)}
            for name, line in (("metrics.jsonl", head | means), ("timings.jsonl", timing)):
                append_line(_folder(trainer) / name, json.dumps(line, allow_nan=False))

    def _refuse_nonfinite(self, trainer: pl.Trainer, means: dict[str, float], done: int) -> None:
        nonfinite = sorted(key for key, value in means.items() if not math.isfinite(value))
        if nonfinite:
            saved = sorted((_folder(trainer) / "checkpoints").glob("*.ckpt"))
            last = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
            raise DivergedError(
                f"training diverged by iteration {done}: not finite: {', '.join(nonfinite)}; {last}. "
                "Try a smaller learning rate, trainer.gradient_clip_val=1 or trainer.precision=32-true"
            )


def peak_memory() -> dict[str, float | None]:
    """Return this process's peak memory so far in GB (2^30 bytes): "ram", and "gpu" (None without a GPU).

    Examples:
        >>> 0 < peak_memory()["ram"] < 1000
        True
    """
    unit = 1 if sys.platform == "darwin" else 2**10
    gpu = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {"ram": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, "gpu": gpu}


def keep_until(path: Path, iteration: int) -> None:
    r"""Drop the lines of a .jsonl file that come after `iteration`, and an incomplete last line.

    Args:
        path: file whose lines have a key "iteration"; it may be missing.
        iteration: last iteration to keep.

    Raises:
        UserError: another line than the last is damaged.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "metrics.jsonl"
        ...     _ = path.write_text('{"iteration": 10}\n{"iteration": 20}\n{"itera')
        ...     keep_until(path, 10)
        ...     path.read_text()
        '{"iteration": 10}\n'
    """
    if not path.exists():
        return
    kept = []
    for number, line in enumerate(regular(path).read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            late = json.loads(line)["iteration"] > iteration
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: is damaged, it names no iteration; restore the file from a copy of the run "
                "folder or delete the line"
            ) from error
        if late:
            break
        kept.append(line)
    write_atomic(path, b"".join(kept))


def _mean_over_ranks(trainer: pl.Trainer, means: dict[str, float]) -> dict[str, float]:
    if trainer.world_size == 1 or not means:
        return means
    values = torch.tensor(list(means.values()), dtype=torch.float64)
    reduced = trainer.strategy.reduce(values.to(trainer.strategy.root_device), reduce_op="mean")
    return dict(zip(means, torch.as_tensor(reduced).tolist(), strict=True))


def _detector(module: pl.LightningModule) -> Detector:
    assert isinstance(module, Detector)
    return module


def _folder(trainer: pl.Trainer) -> Path:
    return Path(trainer.default_root_dir)
