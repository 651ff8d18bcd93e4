"""A warm start: a run begins with a finished phase of another one, as if it had trained that phase itself.

Where that phase is the last one, nothing is left to train: the same weights are evaluated under other settings.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from anomaly_lab.detectors.families import fake_pool
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import checkpoint_files, run_folder
from anomaly_lab.types import UserError


@dataclass(frozen=True)
class WarmStart:
    """The weights at the end of a phase of a finished run, its fake pool, and what the record says of them.

    Attributes:
        source: folder of the run.
        phase: name of the phase.
        phases: iterations of the phases up to and including that one, by name, in their order.
        checkpoint: the file the weights are from.
        state: the detector's state there.
        facts: the run's provenance.
    """

    source: Path
    phase: str
    phases: dict[str, int]
    checkpoint: Path
    state: dict[str, Tensor]
    facts: dict[str, Any]

    @classmethod
    def open(cls, path: str, phase: str = "gan") -> WarmStart:
        """Read a run's newest checkpoint, once.

        Args:
            path: of the run folder.
            phase: that is taken over.

        Raises:
            UserError: no such run, no checkpoint, or the phase is unknown there or not finished.
        """
        source = run_folder.open_run(path)
        facts, newest = run_folder.read_json(source / "provenance.json"), checkpoint_files.newest(source)
        if newest is None:
            raise UserError(f"start_from={path}: it has no checkpoint; train it first: make resume RUN={path}")
        phases: dict[str, int] = facts.get("detector", {}).get("phases", {})
        if phase not in phases:
            raise UserError(f"start_from={path}: it has no phase {phase}, only {', '.join(phases)}; see start_phase")
        names = list(phases)
        taken = {name: phases[name] for name in names[: names.index(phase) + 1]}
        state: dict[str, Tensor] = checkpoint_files.load(newest)["state_dict"]
        if int(state["iteration"]) < sum(taken.values()):
            raise UserError(f"start_from={path}: its phase {phase} is not finished; go on with: make resume RUN={path}")
        return cls(source, phase, taken, newest, state, facts)

    def apply_to(self, detector: Detector) -> None:
        """Give a detector the networks of the phases up to this one and put it at their end.

        A detector without such a phase is left as it is; it is the pool it wants.

        Raises:
            UserError: its phases or networks are others than the run's.
        """
        span = detector.schedule.span(self.phase)
        if not span:
            return
        passed = [phase for phase in detector.schedule if detector.schedule.span(phase.name).stop <= span.stop]
        if (here := {phase.name: phase.iterations for phase in passed}) != self.phases:
            theirs, ours = (", ".join(f"{name} {n}" for name, n in found.items()) for found in (self.phases, here))
            raise UserError(f"start_from={self.source}: its iterations up to {self.phase} are {theirs}, these {ours}")
        moved = dict.fromkeys(name for phase in passed for name in phase.networks)
        whole = span.stop == detector.schedule.iterations  # counters and averages beside the networks are wanted, too
        kept = {*moved, "augmentation"}  # ADA's p is learned in the phase as well
        state = detector.state_dict()
        taken, wanted = (
            {key: value for key, value in each.items() if whole or key.split(".")[0] in kept}
            for each in (self.state, state)
        )
        if {key: value.shape for key, value in taken.items()} != {key: value.shape for key, value in wanted.items()}:
            names = " and ".join(moved)
            raise UserError(
                f"start_from={self.source}: its {names} differ from this detector's; set the same sizes and augment_d"
            )
        detector.load_state_dict({**state, **taken, "iteration": state["iteration"].new_tensor(span.stop)})

    def record(self) -> dict[str, Any]:
        """What the new run's record says: run, checkpoint (whose name holds its digest), phase, iterations, seconds.

        `caveats` are those of how the weights were chosen.
        """
        caveats = self.facts["detector"].get("caveats", [])
        return {
            "run": str(self.facts.get("run", self.source.name)),
            "checkpoint": self.checkpoint.name,
            "phase": self.phase,
            "iterations": self.phases[self.phase],
            "seconds": self.facts.get("seconds", {}).get(self.phase),
            "caveats": [caveat for caveat in caveats if caveat.startswith("callbacks.")],
        }

    def link_into(self, run: Path, with_checkpoint: bool) -> None:
        """Put the fake pool, if there is one, into the folder of a new run; linked where that is possible.

        Args:
            run: the new folder.
            with_checkpoint: the checkpoint as well, where nothing will be trained that makes one.
        """
        for file in (self.source / fake_pool.FOLDER).glob("*.npy"):
            _link(file, run / fake_pool.FOLDER / file.name)
        if with_checkpoint:
            _link(self.checkpoint, run / self.checkpoint.relative_to(self.source))


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:  # another disk, or one that has no links
        shutil.copyfile(file, target)
