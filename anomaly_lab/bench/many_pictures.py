"""Data sets of pictures too many to store: time and memory of listing, loading and evaluating, beside torchvision's."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from anomaly_lab.data.datamodule import StoreOptions
from anomaly_lab.data.datasets.sixray import CATEGORIES, SIXray
from anomaly_lab.data.preprocessing.transforms import Picture
from anomaly_lab.data.twins.sixray import write_twin
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment.config import Evaluation
from anomaly_lab.pipeline.evaluate import evaluate_run
from anomaly_lab.pipeline.training import score_all
from anomaly_lab.types import Phase, Prediction, Schedule

Times = dict[str, list[float]]
PICTURES = 200_000
DISTINCT = 400  # pictures that differ; the others are hard links to them
POSITIVES = 2_000
WORKERS, BATCH, SIDE = 2, 64, 64
TIMED, WARM = 60, 8  # batches that are timed, and batches before them, for which workers start
PAIRS = (("lazy batch", "ImageFolder batch"),)


def many_pictures(rounds: int, count: int = PICTURES) -> Times:
    """Measure SIXray of many pictures that are read on demand by two processes; and torchvision's ImageFolder on them.

    Args:
        rounds: of loading by either in turn.
        count: number of pictures.

    Returns:
        Seconds by name, peaks of memory in GB of the process and its workers; `PAIRS` says which names compare.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = write_pictures(Path(folder), count)
        result: Times = {}
        for name in ("_whole", "_batches"):
            code = (
                "import json, sys; from pathlib import Path; from anomaly_lab.bench import many_pictures; "
                f"print(json.dumps(many_pictures.{name}(Path(sys.argv[1]), int(sys.argv[2]))))"
            )
            words = [sys.executable, "-c", code, str(root), str(rounds)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            result |= json.loads(done.stdout.splitlines()[-1])
    return result


def write_pictures(root: Path, count: int) -> Path:
    """Write `count` bags in the layout of SIXray1000, and the same by class below `folders`, and return `root`."""
    (root / "distinct").mkdir()
    write_twin(root / "distinct", seed=0, size=min(DISTINCT, count))
    for folder in ("JPEGImage", "ImageSet/1000", "folders/normal", "folders/anomalous"):
        (root / folder).mkdir(parents=True)
    kinds = {kind: sorted((root / "distinct" / "JPEGImage").glob(f"{kind}*.jpg")) for kind in "PN"}
    rows: dict[str, list[str]] = {"train": [], "test": []}
    positives = min(POSITIVES, count // 10)
    for number in range(count):
        has_item = number < positives
        name = f"P{number:05d}" if has_item else f"N{number:07d}"
        pictures = kinds[name[0]]
        for folder in ("JPEGImage", "folders/anomalous" if has_item else "folders/normal"):
            os.link(pictures[number % len(pictures)], root / folder / f"{name}.jpg")
        items = ("1" if has_item and number // 5 % 5 == i else "-1" for i in range(len(CATEGORIES)))
        rows["train" if number % 5 else "test"].append(",".join((name, *items)))
    for split, lines in rows.items():
        text = "\n".join([",".join(("name", *CATEGORIES)), *lines])
        (root / "ImageSet" / "1000" / f"{split}.csv").write_text(text + "\n", encoding="utf-8")
    return root


class Brightness(Detector):
    """A detector that costs nothing: what is measured is the way to it and from it."""

    networks = ("scale",)
    supervised = True

    def __init__(self, iterations: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.scale = nn.Linear(1, 1)

    def configure_optimizers(self) -> tuple[Optimizer, ...]:
        return (SGD(self.scale.parameters()),)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("fit", self.settings.iterations, self.networks, cases="all"),)

    def fit_step(self, batches: Tensor, targets: Tensor) -> None:
        """Learn nothing."""

    def predict(self, image: Tensor) -> Prediction:
        return Prediction(image.flatten(1).mean(1), image.mean(1, keepdim=True) + 1)


class Peak:
    """Peak memory of this process and its workers, in GB: `rss`, where what they share counts for each, and `pss`."""

    def __init__(self, interval: float = 0.25) -> None:
        self.rss = self.pss = 0.0
        self._interval, self._over = interval, threading.Event()
        self._watch = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> "Peak":
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._watch.join()

    def _measure(self) -> None:
        here = psutil.Process()
        while not self._over.wait(self._interval):
            try:
                used = [process.memory_full_info() for process in (here, *here.children(recursive=True))]
            except psutil.Error:  # a worker has just ended
                continue
            self.rss = max(self.rss, sum(one.rss for one in used) / 2**30)
            self.pss = max(self.pss, sum(one.pss for one in used) / 2**30)


def _bags(root: Path) -> SIXray:
    return SIXray(
        root=str(root),
        subset=1000,
        source="real",
        in_channels=3,
        patch_size=(SIDE, SIDE),
        picture=Picture(fit="stretch"),
        batch_size=BATCH,
        supervision="labels",
        target_type="multilabel",
        classes=CATEGORIES,
        store=StoreOptions(enabled=False, num_workers=WORKERS),
    )


def _epoch(data: SIXray, iterations: int, done: int = 0) -> Iterable[Any]:
    """Return the loader of `iterations` mini-batches of all training cases, counted on from `done`."""
    schedule = Schedule((Phase("fit", done + iterations, (), cases="all"),))
    module = SimpleNamespace(schedule=schedule, iterations_done=done)
    data.epoch_length = done + iterations
    trainer: Any = SimpleNamespace(lightning_module=module, global_rank=0, world_size=1)
    data.trainer = trainer
    return data.train_dataloader()


def _whole(root: Path, rounds: int) -> Times:
    """List, load every training picture once, and score and evaluate all others."""
    with Peak() as peak, tempfile.TemporaryDirectory() as folder:
        times = {}
        start = time.perf_counter()
        data = _bags(root)
        data.setup()
        data.record()
        times["list, many pictures"] = time.perf_counter() - start
        peak_of_list = peak.rss
        start = time.perf_counter()
        training = sum(len(rows) for name, rows in data.rows.items() if name.startswith("train"))
        for _ in _epoch(data, training // BATCH):
            pass
        times["lazy epoch"] = time.perf_counter() - start
        start = time.perf_counter()
        detector = Brightness()
        scored = score_all(data, detector)
        assert scored is not None
        evaluate_run(Path(folder), Evaluation(replicates=100), data, detector, scored)
        times["lazy evaluation"] = time.perf_counter() - start
    return {name: [seconds] for name, seconds in times.items()} | {
        "peak of the list, many pictures, GB": [peak_of_list],
        "peak with workers, many pictures, GB": [peak.rss],
        "the same, shared memory counted once, GB": [peak.pss],
    }


def _batches(root: Path, rounds: int) -> Times:
    """Time loading a batch by this package and by torchvision, in turn, after a round for the disk's cache."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    data = _bags(root)
    data.setup()
    steps = [transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    pictures = ImageFolder(str(root / "folders"), transforms.Compose(steps))
    times: Times = {name: [] for pair in PAIRS for name in pair}
    for number in range(rounds + 1):
        ours = _epoch(data, TIMED + WARM, done=number * (TIMED + WARM))
        theirs = DataLoader(pictures, BATCH, shuffle=True, num_workers=WORKERS)
        seconds = [_seconds_a_batch(iter(loader)) for loader in (ours, theirs)]
        if number:
            for name, value in zip(times, seconds, strict=True):
                times[name].append(value)
    return times


def _seconds_a_batch(loader: Iterator[Any]) -> float:
    for _ in islice(loader, WARM):
        pass
    start = time.perf_counter()
    for _ in islice(loader, TIMED):
        pass
    return (time.perf_counter() - start) / TIMED
