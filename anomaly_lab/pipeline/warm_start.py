"""Starts a run from another's finished phase `gan`: its networks and its fake pool, as if this run had trained them.

Where that phase is the last, nothing is left but to judge: the same training under other settings of the evaluation.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from anomaly_lab.callbacks import checkpoints
from anomaly_lab.detectors.families import fake_pool
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import run_folder
from anomaly_lab.types import UserError

PHASE = fake_pool.PHASE


def take_over(path: str, detector: Detector) -> dict[str, Any]:
    """Give `detector` the networks of phase `gan` from the run at `path` and put it at that phase's end.

    A detector without such a phase is left as it is; it is the pool it wants.

    Returns:
        What the record says of it: run, name of the checkpoint (its digest is part of it), iterations and seconds of
        the phase there, and what must be said of how its weights were chosen.

    Raises:
        UserError: no such run, its phase is not finished, or was another than this detector's.
    """
    source = run_folder.open_run(path)
    facts, newest = run_folder.read_json(source / "provenance.json"), checkpoints.newest(source)
    if newest is None:
        raise UserError(f"start_from={path}: it has no checkpoint; train it first: make resume RUN={path}")
    there, span = facts.get("detector", {}).get("phases", {}).get(PHASE), detector.schedule.span(PHASE)
    state: dict[str, Tensor] = checkpoints.load(newest)["state_dict"]
    if there is None or int(state["iteration"]) < there:
        raise UserError(f"start_from={path}: its phase {PHASE} is not finished; go on with: make resume RUN={path}")
    if span:
        if len(span) != there:
            raise UserError(f"start_from={path}: its phase {PHASE} has {there} iterations, this one's {len(span)}")
        _load(detector, state, path)
    return {
        "run": str(facts.get("run", source.name)),
        "checkpoint": newest.name,
        "phase": PHASE,
        "iterations": there,
        "seconds": facts.get("seconds", {}).get(PHASE),
        "caveats": [caveat for caveat in facts["detector"].get("caveats", []) if caveat.startswith("callbacks.")],
    }


def link_pool(path: str, run: Path) -> None:
    """Put the fake pool of the run at `path`, if it has one, into the folder `run`; linked where that is possible."""
    source, target = Path(path) / fake_pool.FOLDER, run / fake_pool.FOLDER
    for file in source.glob("*.npy"):
        _link(file, target / file.name)


def link_checkpoint(path: str, run: Path) -> None:
    """Put the newest checkpoint of the run at `path` into the folder `run`: nothing will be trained that makes one."""
    newest = checkpoints.newest(Path(path))
    assert newest is not None, "take_over refuses such a run"
    _link(newest, run / newest.relative_to(path))


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:  # another disk, or one that has no links
        shutil.copyfile(file, target)


def _load(detector: Detector, state: dict[str, Tensor], path: str) -> None:
    here, end = detector.state_dict(), detector.schedule.span(PHASE).stop
    moved = detector.schedule.phase_at(end - 1).networks
    kept = {*moved, "augmentation"}  # ADA's p is learned in this phase as well
    whole = end == detector.schedule.iterations  # counters and averages beside the networks are wanted, too
    taken, wanted = ({k: v for k, v in each.items() if whole or k.split(".")[0] in kept} for each in (state, here))
    if {k: v.shape for k, v in taken.items()} != {k: v.shape for k, v in wanted.items()}:
        named = " and ".join(moved)
        raise UserError(f"start_from={path}: its {named} differ from this detector's; set the same sizes and augment_d")
    detector.load_state_dict({**here, **taken, "iteration": here["iteration"].new_tensor(end)})
