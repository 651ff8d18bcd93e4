"""What a run was made with, and whether that is still there: its data, its split and its checkpoint.

A run records the source of its data (real files or their synthetic twin), the absolute root, the fingerprint, the split
(`split.csv`) and an id that its checkpoints carry. Whoever goes on with the run uses just these or refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.splitting.recorded import SPLIT, RecordedSplit
from anomaly_lab.experiment import config as configuration
from anomaly_lab.experiment import record, run_folder
from anomaly_lab.pipeline.warm_start import WarmStart
from anomaly_lab.types import UserError


@dataclass(frozen=True)
class DataAsked:
    """What the user says of a run's data when going on with it.

    Attributes:
        root: folder where the same files lie now; None for where they were.
        accept_changes: go on although files were added, removed or altered, with what is left of the recorded split.
    """

    root: str | None = None
    accept_changes: bool = False


AS_RECORDED = DataAsked()


def point_at_data(config: DictConfig, run: Path, facts: Mapping[str, Any], asked: DataAsked) -> None:
    """Set source and root of a run's experiment to those it was trained with.

    Real files never become their synthetic twin, and a twin never real files, whatever lies where today.

    Args:
        config: of the run; its section `data` is changed.
        run: the run folder, for messages.
        facts: its provenance.
        asked: where the files lie now.

    Raises:
        UserError: the files are not there.
    """
    config.data.source = source = facts.get("source", config.data.source)
    if source == "twin" and asked.root is not None:
        raise UserError(f"--data-root: {run} was trained on its synthetic twin, which is made anew where it is missing")
    if source != "real":
        return
    root = asked.root or (facts.get("data") or {}).get("root") or config.data.root
    if not Path(root).exists():
        raise UserError(
            f"{root}: the real files that {run} was trained on are not there; mount them again, or say where they lie "
            "now: --data-root DIR"
        )
    config.data.root = str(Path(root).absolute())


def refuse_other_data(config: DictConfig, run: Path) -> None:
    """Refuse to take a run for one of this experiment if it was trained on other files.

    Files in the same place are the same, mounted or not: a finished run needs none, and whoever goes on looks at them.

    Args:
        config: the resolved experiment.
        run: the run folder.

    Raises:
        UserError: says which files the run has, and how to go on with it if they were moved.
    """
    facts = record.read_provenance(run)
    root, asked = (facts.get("data") or {}).get("root"), config.data.source
    if facts.get("source") == "twin" and asked == "real":
        raise UserError(f"{run} is a run on the synthetic twin, not on real files; name another folder")
    if facts.get("source") != "real" or root is None:  # files that have appeared leave a run on its twin
        return
    here = Path(root).resolve()
    if asked != "twin" and Path(config.data.root).resolve() == here:
        return
    data: PatchDataModule = configuration.build(config.data)
    if data.source == "twin":
        raise UserError(f"{run} is a run on the files in {root}, not on the synthetic twin; name another folder")
    if data.folder.resolve() != here:
        raise UserError(
            f"{run} is a run on the files in {root}, not on those in {data.folder.absolute()}; name another folder, or "
            f"if the files were moved: make resume (of a finished run evaluate) RUN={run} DATA_ROOT={data.folder}"
        )


def refuse_other_split(config: DictConfig, run: Path) -> None:
    """Refuse to take a run for one of this experiment if its real files are split otherwise today, or have changed.

    Files that are not mounted, and runs of older code, which recorded no split, cannot be compared.

    Args:
        config: the resolved experiment.
        run: a run on these files, see `refuse_other_data`.

    Raises:
        UserError: the split, or a picture, label or mask, is another one.
    """
    facts, recorded = record.read_provenance(run), RecordedSplit.read(run / SPLIT)
    root = (facts.get("data") or {}).get("root")
    if recorded is None or facts.get("source") != "real" or root is None or not Path(root).exists():
        return
    data: PatchDataModule = configuration.build(config.data)
    if data.source != "real":
        return
    data.prepare_data()
    if not data.is_as_recorded(recorded):
        raise UserError(
            f"{run} is a run with another split, or with other pictures, labels or masks, than {data.folder} has now; "
            f"name another folder, or to go on with its own split: make resume (of a finished run evaluate) RUN={run}"
        )


def pin_split(data: PatchDataModule, run: Path, asked: DataAsked) -> None:
    """Make a data set, before its set-up, use the split that the run recorded."""
    recorded = RecordedSplit.read(run / SPLIT)
    if recorded is not None:
        data.pin(recorded, asked.accept_changes)


def check_fingerprint(data: PatchDataModule, run: Path, facts: Mapping[str, Any], asked: DataAsked) -> None:
    """Compare a data set, set up, with a run of older code, which recorded a fingerprint and no split.

    Raises:
        UserError: the data differ and no change was accepted.
    """
    recorded = (facts.get("data") or {}).get("fingerprint")
    if (run / SPLIT).exists() or recorded in (None, *data.store.fingerprints) or asked.accept_changes:
        return
    raise UserError(
        f"{data.folder}: the data are not those that {run} began with (their fingerprint differs; an older version "
        "recorded no list of files); if they lie elsewhere say --data-root DIR, to go on with a split drawn anew "
        "--accept-changed-data"
    )


def note_data(run: Path, data: PatchDataModule, verb: str, asked: DataAsked) -> None:
    """Record where the data lie now, and which changes of them were accepted in training and in the last evaluation."""
    facts = record.read_provenance(run)
    root = str(data.folder.absolute())
    before = facts["data"].get("root")
    if data.source == "real" and root != before:
        run_folder.update_provenance(run, data=facts["data"] | {"root": root, "moved_from": before})
    fingerprints = data.store.fingerprints
    known = facts.get("accepted_changes", [])
    accepted = [entry for entry in known if entry["verb"] != "evaluate"]  # the results will be of this evaluation
    if asked.accept_changes and (data.changes or facts["data"].get("fingerprint") not in fingerprints):
        text = data.changes.counted or "the fingerprint differs, and the split was drawn anew"
        entry = {"at": run_folder.now(), "verb": verb, "changes": text}
        if data.changes:
            entry["named"] = str(data.changes)
        accepted.append(entry)
    if accepted != known:
        run_folder.update_provenance(run, accepted_changes=accepted)


def refuse_tested_training(start: WarmStart, own: RecordedSplit, data: PatchDataModule) -> None:
    """Refuse a warm start from a run that was trained on pictures this run is tested on.

    Args:
        start: the warm start; a run of older code has no recorded split and cannot be checked.
        own: split of this run.
        data: this run's data set.

    Raises:
        UserError: there are such pictures; says how many.
    """
    leaked = _trained_on(start, own, data, {id for id, entry in own.entries.items() if entry.split == "test"})
    if leaked:
        raise UserError(
            f"start_from={start.source}: that run was trained on {len(leaked)} of the cases this one is tested on "
            f"({leaked[0]}{', …' if len(leaked) > 1 else ''}); start from a run of the same split: same seed, same "
            "data.split"
        )


def caveats_of_start(start: WarmStart, own: RecordedSplit, data: PatchDataModule) -> list[str]:
    """Return what a warm start has to warn of: that it was trained on normals by which this run sets its threshold.

    It is no reason to refuse it: where the owners give the test split, another seed moves just train and validation,
    and a study of several seeds may start from one run.

    Args:
        start: the warm start, see `refuse_tested_training`.
        own: split of this run.
        data: this run's data set, set up.
    """
    rows = zip(data.store.index.columns["id"], data.store.index.labels().tolist(), strict=True)
    normals = {id for id, label in rows if not label and id in own.entries and own.entries[id].split == "val"}
    seen, known = _trained_on(start, own, data, normals), {own.entries[id].case for id in normals}
    if not seen:
        return []
    return [
        f"start_from: the weights that the run began with were trained on {len(seen)} of its {len(known)} validation "
        "normals, so that these score lower than new normals; by the threshold and the p-values too many cases are "
        "anomalous"
    ]


def _trained_on(start: WarmStart, own: RecordedSplit, data: PatchDataModule, ids: Set[str]) -> list[str]:
    """Return the cases, among rows of this run, that the run of a warm start was trained on, sorted.

    Pictures are the same if they have the same content; or the same id, if both runs mean the same files by it.
    """
    theirs = RecordedSplit.read(start.source / SPLIT)
    if theirs is None:
        return []
    trained = {id: entry for id, entry in theirs.entries.items() if entry.split == "train"}
    digests = {entry.digest for entry in trained.values()}
    before = start.facts.get("data") or {}
    same_place = (before.get("name"), before.get("root")) == (data.name, str(data.folder.absolute()))
    same_files = same_place or theirs.agrees(own)
    seen = (id for id in ids if own.entries[id].digest in digests or (same_files and id in trained))
    return sorted({own.entries[id].case for id in seen})
