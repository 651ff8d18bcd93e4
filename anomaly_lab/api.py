"""The Python API: what the command line does, as functions that return objects; `import anomaly_lab as al`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly_lab.experiment import compose, run_folder
from anomaly_lab.experiment import config as configuration
from anomaly_lab.pipeline import engine
from anomaly_lab.pipeline.scorer import Scorer


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    @property
    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json: `metrics["detector"]["auroc"]` has value, low and high; empty before evaluation."""
        return run_folder.in_current_words(run_folder.read_json(self.folder / "metrics.json"))

    @property
    def provenance(self) -> dict[str, Any]:
        """Content of provenance.json: code, versions, data, budget, caveats."""
        return run_folder.read_json(self.folder / "provenance.json")

    @property
    def report(self) -> Path:
        """The report, an HTML page."""
        return self.folder / "report.html"

    @property
    def scores(self) -> Path:
        """scores.csv: id, patient, split, label and raw score of every validation and test case."""
        return self.folder / "scores.csv"

    def scorer(self) -> Scorer:
        """What `load` returns of this run."""
        return load(self.folder)


def experiments() -> list[str]:
    """Names of all experiments: every detector on every data set, and whole files of your own."""
    return compose.experiments()


def show(experiment: str, **settings: Any) -> str:
    """A whole experiment as YAML, every default filled in; settings as `train` takes them."""
    return configuration.show(configuration.load(experiment, overrides(settings)))


def train(experiment: str, **settings: Any) -> Run:
    """Train, evaluate and report one experiment, exactly as `make train EXP=…` does.

    Args:
        experiment: its name, see `experiments`.
        settings: what is laid over it: sections as mappings, `data={"root": "scans"}`, `detector={"lr": 1e-4}`, and
            `budget`, `seed`, `runs`, `start_from` and the like as they are.

    Returns:
        The finished run.

    Raises:
        UserError: no such experiment, or a setting or a file that cannot be used; one line says which.
    """
    return Run(engine.train_by_name(experiment, overrides(settings)))


def resume(run: str | Path | Run) -> Run:
    """Continue a stopped run as if it had never stopped."""
    return Run(engine.resume(str(_folder(run))))


def evaluate(run: str | Path | Run) -> Run:
    """Score and evaluate a trained run again; needs its data."""
    engine.evaluate(str(_folder(run)))
    return Run(_folder(run))


def load(run: str | Path | Run) -> Scorer:
    """A trained run that scores new pictures and volumes; the data it was trained on are not needed.

    Raises:
        UserError: not a run folder, not trained far enough, or never evaluated.
    """
    return Scorer.open(_folder(run))


def overrides(settings: Mapping[str, Any], above: str = "") -> list[str]:
    """Settings in nested mappings as the command line's `key=value` words.

    Example:
        >>> overrides({"seed": 1, "data": {"root": "my scans", "augment": None}})
        ['seed=1', 'data.root="my scans"', 'data.augment=null']
    """
    return list(_words(settings, above))


def _words(settings: Mapping[str, Any], above: str) -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _words(value, f"{above}{key}.")
        else:
            yield f"{above}{key}={json.dumps(value, default=str)}"


def _folder(run: str | Path | Run) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)
