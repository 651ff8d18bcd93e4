"""Finds the run of a plan among the run folders: by configuration, code and data, not by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from yaml import YAMLError

from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import fingerprint
from anomaly_lab.experiment.run_folder import read_json
from anomaly_lab.studies.plan import Planned, plain

Code = Literal["same", "any"]


@dataclass(frozen=True)
class Found:
    """A run folder and what it says it is.

    Attributes:
        folder: of the run.
        config, code, data: fingerprints; `code` of what made weights and scores.
        started: ISO 8601.
        finished: whether it was evaluated.
        evaluation: fingerprint of the code that evaluated it.
    """

    folder: Path
    config: str
    code: str
    data: str
    started: str
    finished: bool
    evaluation: str = ""

    @property
    def identity(self) -> str:
        """The three fingerprints as one word, for runs that start from this one."""
        return f"{self.config}-{self.code}-{self.data}"


class Ledger:
    """The run folders below a folder, looked through anew each time.

    Args:
        runs: folder of the run folders.
        code: "any" takes runs of other code too; the page says which code made which run.
    """

    def __init__(self, runs: Path, code: Code = "same") -> None:
        self.runs, self.code = runs, code

    def match(self, run: Planned, start: Found | None) -> Found | None:
        """The run that is planned: a finished one rather than an unfinished, an older one rather than a newer.

        The data's fingerprint is asked for only where configuration and code match: it may have a store built.

        Args:
            run: planned.
            start: the finished run that it starts from, where it does.
        """
        wanted, code = fingerprints(run, start)
        alike = [f for f in self._all() if f.config == wanted and (self.code == "any" or f.code == code["training"])]
        if not alike:
            return None
        data = data_fingerprint(json.dumps(run.config["data"], sort_keys=True))
        alike = [found for found in alike if found.data == data]
        return min(alike, key=lambda found: (not found.finished, found.started), default=None)

    def is_stale(self, run: Planned, found: Found) -> bool:
        """Whether a finished run was evaluated by other code than today's: it is to be evaluated again, not trained."""
        return self.code == "same" and found.evaluation != fingerprint.of_code(run.config)["evaluation"]

    def _all(self) -> list[Found]:
        facts = self.runs.glob("*/*/provenance.json")
        return [found for path in facts if (found := _read(path.parent, path.stat().st_mtime_ns))]


def read(run: Path) -> Found | None:
    """What a run folder says it is; None if it does not say enough, being torn or foreign."""
    path = run / "provenance.json"
    return _read(run, path.stat().st_mtime_ns) if path.is_file() else None


def fingerprints(run: Planned, start: Found | None) -> tuple[str, dict[str, str]]:
    """What configuration and code a planned run will have."""
    return fingerprint.of_config(run.config, start.identity if start else None), fingerprint.of_code(run.config)


@cache
def data_fingerprint(section: str) -> str:
    """Fingerprint of the data that a `data` section, as JSON, describes; builds the store where there is none."""
    data: Any = configuration.build(OmegaConf.create(json.loads(section)))
    data.prepare_data()
    return str(data.store.fingerprint)


@cache
def _read(run: Path, changed: int) -> Found | None:
    try:
        facts, config = read_json(run / "provenance.json"), plain((run / "config.yaml").read_text())
        start = _started_from(run, Path(config["start_from"])) if config.get("start_from") else None
        code = facts["code"] if isinstance(facts["code"], dict) else {"training": facts["code"], "evaluation": ""}
        return Found(
            folder=run,
            config=fingerprint.of_config(config, start.identity if start else None),
            code=code["training"],
            evaluation=code["evaluation"],
            data=facts["data"]["fingerprint"],
            started=facts["started"],
            finished=bool(facts.get("finished")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError):
        return None


def _started_from(run: Path, source: Path) -> Found | None:
    """Beside the run, where run folders that were moved have it, else where it was."""
    return read(run.parent.parent / source.parent.name / source.name) or read(source)
