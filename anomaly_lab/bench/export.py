"""Exports of every detector: largest difference to the run, size of the file, images a second beside torch.

Each detector is trained on the synthetic twin of Head-CT at the smoke budget, unless a folder of runs has one already.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from anomaly_lab.bench.turns import interleaved
from anomaly_lab.experiment import compose, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.pipeline import engine
from anomaly_lab.pipeline.export import export_run
from anomaly_lab.pipeline.scorer import Scorer
from anomaly_lab.runtime.scorer import ExportScorer
from anomaly_lab.types import Batch, UserError

IMAGES = 64  # that are scored in a turn
DATA = "headct"


def main(out: Path, words: Sequence[str] = (), rounds: int = 5) -> None:
    """Measure the exports of all detectors, print them as a table and write them as JSON.

    Args:
        out: file for the results.
        rounds: timed rounds, after one warm-up round.
        words: `runs=FOLDER` for runs that are there, `detectors=[pca,vae]` for some of the detectors; all others are
            settings of the runs that are trained.

    Examples:
        >>> main(Path("runs/bench_export.json"), ["detectors=[pca]"])  # doctest: +SKIP
    """
    chosen = [word for word in words if word.startswith("detectors=")]
    names = chosen[-1].partition("=")[2].strip("[]").split(",") if chosen else sorted(compose.detectors())
    rest = [word for word in words if word not in chosen]
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for name in names:
            rows.append({"detector": name} | _measured(name, Path(folder), rounds, rest))
            _print(rows[-1:])
    out.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(out, run_folder.provenance() | {"images": IMAGES, "rounds": rounds, "exports": rows})
    _print(rows)
    print(f"Written: {out}")


def _measured(name: str, folder: Path, rounds: int, words: Sequence[str]) -> dict[str, Any]:
    """Return what is measured of a detector, or why it has no export."""
    run = next(_finished(name, words), None)
    if run is None:
        settings = ["budget=smoke", "data.source=twin", f"runs={folder}", "callbacks.wandb=null", *words]
        run = engine.train(configuration.load(f"{name}_{DATA}", settings))
    try:
        exported = export_run(run, "onnx", str(folder / f"{name}.export"))
    except UserError as error:
        return {"why_not": str(error)}
    scorer, runtime = Scorer.open(run), ExportScorer.open(exported.folder, threads=1)
    torch.set_num_threads(1)  # one each: where others work, too, threads that wait for each other tell little
    shape = (IMAGES, scorer.data.in_channels, *scorer.data.patch_size)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    batch = Batch(image=torch.from_numpy(images))
    times = interleaved(
        {"torch": lambda: scorer.detector.score(batch), "onnxruntime": lambda: runtime.outputs(images)}, rounds
    )
    speeds = {key: IMAGES / statistics.median(seconds) for key, seconds in times.items()}
    return {
        "differences": exported.differences,
        "bytes": exported.model.stat().st_size,
        "images": list(shape[1:]),
        "images_per_second": speeds,
        "raw": times,
    }


def _finished(name: str, words: Sequence[str]) -> Iterator[Path]:
    """Yield the finished runs of a detector in the folder that the words name."""
    for word in words:
        if word.startswith("runs="):
            folder = Path(word.removeprefix("runs=")) / f"{name}_{DATA}"
            yield from (path.parent for path in sorted(folder.glob("*/metrics.json")))


def _print(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("detector", "largest difference", "MB", "torch", "onnxruntime", "images/s, ratio")
    for row in rows:
        if "why_not" in row:
            table.add_row(row["detector"], row["why_not"])
            continue
        apart = ", ".join(f"{key} {value:.0e}" for key, value in row["differences"].items())
        torchs, onnx = (row["images_per_second"][key] for key in ("torch", "onnxruntime"))
        speeds = (f"{value:,.0f}" for value in (torchs, onnx))
        table.add_row(row["detector"], apart, f"{row['bytes'] / 1e6:.2f}", *speeds, f"{onnx / torchs:.2f}")
    Console().print(table)
