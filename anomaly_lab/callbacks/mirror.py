"""Copy a run's record to a dashboard by one of Lightning's loggers; a failure of the dashboard never hurts the run."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger
from rich.console import Console
from rich.markup import escape

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.experiment.compose import read
from anomaly_lab.experiment.record import read_metrics, read_provenance, remarks_of
from anomaly_lab.reports import images
from anomaly_lab.reports.gallery import read_gallery
from anomaly_lab.reports.html import without_folders

LOGS = ("metrics.jsonl", "timings.jsonl")
Summary = dict[str, float | str]


class Facts(NamedTuple):
    """What a dashboard is told of a run when it begins.

    Attributes:
        name: `<experiment>/<run>`.
        group: the experiment, whose runs belong together.
        job_type: `train`.
        tags: source, budget and data set of the run, then the user's.
        config: the run's settings, without the folders that paths lie in.
    """

    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]


class Exhibit(NamedTuple):
    """A case of the gallery.

    Attributes:
        outcome: tp, fp, tn, fn, fixed, or that of a class.
        case: its number in the gallery; the id may be a patient's name and stays in the run folder.
        score: anomaly score.
        pictures: image, reconstruction and map, as far as there are any; uint8 [H, W, 3].
    """

    outcome: str
    case: int
    score: float
    pictures: dict[str, NDArray[np.uint8]]


class Mirror(RunCallback, ABC):
    """Base class: copies metrics.jsonl, timings.jsonl, sample grids and finally the result; works on rank 0 only.

    The record is the truth and is read, line by line, as it is written. A subclass names a logger and says how a
    picture and a gallery are shown there; numbers, settings and the end are Lightning's.

    Attributes:
        title: name of the dashboard, for messages.
        replays: whether every start tells the whole record from its beginning: what a stopped run has told before is
            deleted by `begin`, or passed over up to the iteration that `begin` sets. One that keeps it is told only
            what follows.
    """

    changes_scores = False
    title: ClassVar[str]
    replays: ClassVar[bool] = True

    def __init__(self, enabled: bool = True, tags: tuple[str, ...] = ()) -> None:
        self.enabled, self.tags = enabled, tags
        self.logger: Logger | None = None
        self._read = dict.fromkeys(LOGS, 0)
        self._pictures: set[Path] = set()
        self._told = -1  # last iteration that the dashboard knows: its lines and earlier ones are passed over

    @abstractmethod
    def begin(self, folder: Path, facts: Facts) -> Logger:
        """Return the logger of a run; what an optional package is missing for may raise."""

    def line(self, values: dict[str, Any], step: int) -> None:
        """Tell a line of the log; only numbers by default."""
        assert self.logger is not None
        self.logger.log_metrics({key: value for key, value in values.items() if _is_number(value)}, step)

    def picture(self, key: str, path: Path, step: int) -> None:
        """Show a grid of samples; not at all by default."""

    def gallery(self, exhibits: list[Exhibit]) -> None:
        """Show the cases of the report's galleries; not at all by default."""

    def end(self, run: Path, summary: Summary, caveats: tuple[str, ...]) -> None:
        """Tell the result of a run that has one, and close; the numbers alone by default."""
        self.line(summary, step=self._last_step(run))
        assert self.logger is not None
        self.logger.save()
        self.logger.finalize("success")

    def stop(self, run: Path) -> None:
        """Close what another run of the same process must not get, of a run that stopped; nothing by default."""

    # --- hooks of Lightning and of the run ---------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and self.enabled:
            folder = Path(trainer.default_root_dir)
            self._safely(lambda: self._start(folder))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if self.logger is not None:
            self._safely(lambda: self._copy_lines(Path(trainer.default_root_dir)))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.logger is not None:
            self._safely(lambda: self._copy_all(Path(trainer.default_root_dir)))

    def on_run_end(self, run: Path) -> None:
        """Copy the result and close the dashboard's run."""
        if self.logger is not None:
            self._safely(lambda: self._finish(run))
        self.logger = None

    def on_run_stopped(self, run: Path) -> None:
        if self.logger is not None:
            self._safely(lambda: self.stop(run))
        self.logger = None

    def _start(self, folder: Path) -> None:
        self._read = {name: 0 if self.replays else _size(folder / name) for name in LOGS}
        self._pictures = set() if self.replays else set(_grids(folder / "samples"))
        self.logger = self.begin(folder, facts_of(folder, self.tags))
        self._pictures |= {path for path in _grids(folder / "samples") if int(path.stem) <= self._told}

    def _copy_all(self, folder: Path) -> None:
        self._copy_lines(folder)
        for path in _grids(folder / "samples"):
            if path not in self._pictures:
                key = path.parent.relative_to(folder).as_posix()  # samples, or samples/<callback>
                self.picture(key, path, int(path.stem))
                self._pictures.add(path)
        assert self.logger is not None
        self.logger.save()

    def _copy_lines(self, folder: Path) -> None:
        for name, position in self._read.items():
            if _size(folder / name) <= position:
                continue
            with (folder / name).open() as file:
                file.seek(position)
                for line in iter(file.readline, ""):
                    values = json.loads(line)
                    if values["iteration"] > self._told:
                        self.line(values, values["iteration"])
                self._read[name] = file.tell()

    def _finish(self, run: Path) -> None:
        self._copy_all(run)
        self.gallery(list(exhibits_of(run)))
        self.end(run, summary_of(run), caveats_of(run))

    def _last_step(self, run: Path) -> int:
        lines = (run / LOGS[0]).read_text().splitlines() if (run / LOGS[0]).is_file() else []
        return int(json.loads(lines[-1])["iteration"]) if lines else 0

    def _safely(self, action: Callable[[], None]) -> None:
        """Run `action`; an exception of the dashboard is reported once and ends the copying, not the run."""
        try:
            action()
        except Exception as error:
            advice = "; pip install anomaly-lab[loggers]" if isinstance(error, ImportError) else ""
            Console(stderr=True).print(
                f"[yellow]{self.title} failed ({escape(str(error) + advice)}): the run continues without it; all "
                "metrics stay in the run folder",
                soft_wrap=True,
            )
            self.enabled, self.logger = False, None


def facts_of(folder: Path, tags: tuple[str, ...]) -> Facts:
    """Return what a dashboard is told of a run when it begins.

    Args:
        folder: the run folder.
        tags: the user's.
    """
    provenance, config = read_provenance(folder), without_folders(read(folder / "config.yaml"))
    group = str(provenance.get("experiment") or folder.parent.name)
    known = (provenance.get("source"), provenance.get("budget"), (provenance.get("data") or {}).get("name"))
    named = tuple(str(tag) for tag in known if tag)
    return Facts(f"{folder.parent.name}/{folder.name}", group, "train", (*named, *tags), config)


def caveats_of(run: Path) -> tuple[str, ...]:
    """Return what must be read beside a run's numbers."""
    provenance = read_provenance(run)
    caveats = [
        *(provenance.get("detector") or {}).get("caveats", []),
        *remarks_of(provenance.get("data") or {}),
    ]
    if provenance.get("source") == "twin":
        caveats.insert(0, "synthetic twin: the images are generated, not from patients")
    if (budget := provenance.get("budget")) not in (None, "paper"):
        caveats.insert(0, f"reduced budget: {budget}")
    return tuple(without_folders(str(caveat)) for caveat in caveats)


def summary_of(run: Path) -> Summary:
    """Return a run's result by flat names: metrics with interval, baselines, threshold, counts, fingerprints.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "metrics.json").write_text('{"detector": {"auroc": {"value": 0.8, "low": 0.7}}}')
        ...     summary_of(Path(folder))
        {'test/auroc': 0.8, 'test/auroc_low': 0.7}
    """
    metrics, provenance = read_metrics(run), read_provenance(run)
    classes = metrics.get("classes") or {}
    shown = {
        "test": metrics.get("detector"),
        "baselines": metrics.get("baselines"),
        "versus_baselines": metrics.get("versus_baselines"),
        "threshold": metrics.get("threshold"),
        "counts": metrics.get("counts"),
        "classes": {key: value for key, value in classes.items() if isinstance(value, dict) and "value" in value},
        "code": provenance.get("code"),
        "git": provenance.get("git"),
        "data": {"fingerprint": (provenance.get("data") or {}).get("fingerprint")},
        "seconds": provenance.get("seconds"),
    }
    return dict(_flat("", without_folders(shown)))


def exhibits_of(run: Path) -> Iterator[Exhibit]:
    """Yield the cases that the evaluation kept with their pictures; volumes by their middle slice."""
    arrays = read_gallery(run)
    maps = arrays.get("anomaly_map")
    brightest = float(np.nanquantile(maps, 0.995)) if maps is not None and maps.size else 1.0
    for i in range(len(arrays["id"]) if arrays else 0):
        image = _slice(arrays["image"][i])
        pictures = {"image": images.shades(image)}
        if "reconstruction" in arrays:
            pictures["reconstruction"] = images.shades(_slice(arrays["reconstruction"][i]))
        if maps is not None:
            pictures["map"] = images.overlay(image, _slice(maps[i])[0], brightest)
        score = float(arrays["anomaly_score"][i]) if "anomaly_score" in arrays else float("nan")
        bytes_of = {name: (colours * 255).round().astype(np.uint8) for name, colours in pictures.items()}
        yield Exhibit(str(arrays["kind"][i]), i + 1, score, bytes_of)


def _slice(values: NDArray[Any]) -> NDArray[Any]:
    """Return [C, H, W] of [C, *S]: the middle slice of a volume."""
    while values.ndim > 3:
        values = values[:, values.shape[1] // 2]
    return values


def _flat(prefix: str, value: object) -> Iterator[tuple[str, float | str]]:
    if isinstance(value, Mapping):
        link = "_" if "value" in value else "/"  # auroc and auroc_low: a name cannot be a file and a folder
        for key, member in value.items():
            yield from _flat(prefix if key == "value" else f"{prefix}{link}{key}".removeprefix("/"), member)
    elif isinstance(value, bool | int | float):
        yield prefix, float(value)
    elif isinstance(value, str):
        yield prefix, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _grids(samples: Path) -> list[Path]:
    """Return every <iteration>.png below a folder in the order of the iterations; the fake pool's picture is none."""
    return sorted((path for path in samples.rglob("*.png") if path.stem.isdigit()), key=lambda path: int(path.stem))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
