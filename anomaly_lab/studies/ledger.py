"""Find planned runs among the existing run folders, by configuration, code and data instead of by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from omegaconf import OmegaConf
from yaml import YAMLError

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.splitting.recorded import SPLIT, RecordedSplit
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import fingerprint
from anomaly_lab.experiment.record import read_provenance
from anomaly_lab.experiment.regular import regular
from anomaly_lab.studies.plan import Planned, plain
from anomaly_lab.types import UserError

Code = Literal["same", "any"]
GONE = "gone"  # the identity of a start that is nowhere: no planned run begins with it


@dataclass(frozen=True)
class Found:
    """An existing run and its fingerprints.

    Attributes:
        folder: the run folder.
        config, code, data: fingerprints of the configuration, of the code that trained and scored, and of the data.
        id: drawn when the run was created; empty for runs of older versions.
        finished: whether it has been evaluated.
        evaluation: fingerprint of the code that evaluated it.
        evaluating: whether an evaluation of it was interrupted, or is under way.
        elsewhere: whether it was evaluated from another checkpoint than its last, which somebody asked for.
        root: where its real files lay when it last used them; empty for synthetic ones.

    Examples:
        >>> Found(Path("runs/vae_headct/1"), "c0", "c1", "d0", id="1f", finished=True).identity
        'c0-c1-d0'
    """

    folder: Path
    config: str
    code: str
    data: str
    id: str
    finished: bool
    evaluation: str = ""
    evaluating: bool = False
    elsewhere: bool = False
    root: str = ""

    @property
    def identity(self) -> str:
        """The three fingerprints as one string, for runs that start from this one."""
        return f"{self.config}-{self.code}-{self.data}"


class Ledger:
    """Finds runs among the run folders below a folder; they are read again at every search.

    Args:
        runs: folder of the run folders.
        code: "same" finds only runs of the present code, "any" also runs of other code; the page says which code made
            which run.

    Examples:
        >>> ledger = Ledger(Path("runs"))
        >>> ledger.code
        'same'
    """

    def __init__(self, runs: Path, code: Code = "same") -> None:
        self.runs, self.code = runs, code

    def match(self, run: Planned, start: Found | None) -> Found | None:
        """Find the existing run that a planned one would repeat; None without any.

        Finished runs are preferred to unfinished ones. Among equals the smallest id decides, then the folder's name:
        what the runs hold, wherever they were copied, and not what the clock of a machine said. The data's fingerprint
        is computed only if configuration and code match, because it may require building a store. It knows no masks and
        no split, so a run must have recorded those of today; one of older code, which recorded none, is trusted.

        Args:
            run: the planned run.
            start: the finished run that it starts from, if any.
        """
        config, code = fingerprints(run, start)
        alike = (found for found in self._all() if found.config == config and not found.elsewhere)
        matches = [found for found in alike if self.code == "any" or found.code == code["training"]]
        if not matches:
            return None
        section = json.dumps(run.config["data"], sort_keys=True)
        data = data_fingerprint(section)
        matches = [found for found in matches if found.data == data and _is_recorded(section, found)]
        return min(matches, key=lambda found: (not found.finished, found.id, found.folder), default=None)

    def is_stale(self, run: Planned, found: Found) -> bool:
        """Return whether a finished run must be evaluated again: it was interrupted, or is of other code."""
        if found.evaluating:
            return True
        return self.code == "same" and found.evaluation != fingerprint.of_code(run.config)["evaluation"]

    def moved_to(self, run: Planned, found: Found) -> Path | None:
        """Return where the real files of a run, found for a planned one, lie now; None if they lie where they lay."""
        if not found.root:
            return None
        data = _set_up(json.dumps(run.config["data"], sort_keys=True))
        lies = data.folder.absolute()
        return lies if data.source == "real" and lies.resolve() != Path(found.root).resolve() else None

    def unmounted(self, run: Planned) -> str | None:
        """Return where the real files of a run like a planned one lay, if they are gone and a twin stands for them."""
        config, code = fingerprints(run, None)
        alike = [found for found in self._all() if found.config == config and found.root]
        roots = [found.root for found in alike if self.code == "any" or found.code == code["training"]]
        gone = next((root for root in roots if not Path(root).exists()), None)
        is_twin = gone and _set_up(json.dumps(run.config["data"], sort_keys=True)).source == "twin"
        return gone if is_twin and run.config["data"].get("source") != "twin" else None

    def _all(self) -> list[Found]:
        records = self.runs.glob("*/*/provenance.json")
        return [found for path in records if (found := _read(path.parent, path.stat().st_mtime_ns))]


def read(run: Path) -> Found | None:
    """Read a run folder; None if it is incomplete or not a run folder.

    Examples:
        >>> read(Path("no/such/run")) is None
        True
    """
    path = run / "provenance.json"
    return _read(run, path.stat().st_mtime_ns) if path.is_file() else None


def fingerprints(run: Planned, start: Found | None) -> tuple[str, dict[str, str]]:
    """Compute the fingerprints of a planned run: of its configuration, and of its code (training, evaluation).

    Args:
        run: the planned run.
        start: the finished run that it starts from, if any.

    Examples:
        For the first run of a study::

            config, code = fingerprints(plan(load("medical_images"))[0], start=None)
    """
    return fingerprint.of_config(run.config, start.identity if start else None), fingerprint.of_code(run.config)


@cache
def data_fingerprint(section: str) -> str:
    """Return the fingerprint of the data that a configuration's section `data` describes; may build the store.

    Args:
        section: the section as JSON.

    Examples:
        For a planned run::

            data_fingerprint(json.dumps(run.config["data"], sort_keys=True))
    """
    return str(_set_up(section).store.fingerprint)


@lru_cache(maxsize=1)  # of several runs of one section; a large index is not kept for each
def _set_up(section: str) -> PatchDataModule:
    data: PatchDataModule = configuration.build(OmegaConf.create(json.loads(section)))
    data.prepare_data()
    return data


def _is_recorded(section: str, found: Found) -> bool:
    """Whether the data that a section describes are, with masks and split, those that a run recorded."""
    path = found.folder / SPLIT
    return not path.exists() or _is_as_in(section, path, path.stat().st_mtime_ns)


@cache
def _is_as_in(section: str, path: Path, changed: int) -> bool:
    try:
        recorded = RecordedSplit.read(path)
    except UserError:  # damaged
        return False
    return recorded is None or _set_up(section).is_as_recorded(recorded)


@cache
def _read(run: Path, changed: int) -> Found | None:
    try:
        facts, config = read_provenance(run), plain(regular(run / "config.yaml").read_text())
        id = (facts.get("started_from") or {}).get("id")
        start = _started_from(run, Path(config["start_from"]), id) if config.get("start_from") else None
        begun = start.identity if start else GONE if config.get("start_from") else None
        code = facts["code"] if isinstance(facts["code"], dict) else {"training": facts["code"], "evaluation": ""}
        return Found(
            folder=run,
            config=fingerprint.of_config(config, begun),
            code=code["training"],
            evaluation=code["evaluation"],
            data=facts["data"]["fingerprint"],
            id=facts.get("id", ""),
            finished=bool(facts.get("finished")),
            evaluating=bool(facts.get("evaluating")),
            elsewhere=(facts.get("checkpoint") or {}).get("rule") == "asked for",
            root=facts["data"].get("root", "") if facts.get("source") == "real" else "",
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, YAMLError, UserError):
        return None


def _started_from(run: Path, source: Path, id: str | None) -> Found | None:
    """Find the run that `run` started from: next to it, in case both folders were moved, or at its recorded place.

    Another run may have been trained into that folder since: it has another id.
    """
    found = (read(place) for place in (run.parent.parent / source.parent.name / source.name, source))
    return next((start for start in found if start and (not id or not start.id or start.id == id)), None)
