"""Warm start: a run reuses a finished phase of another run as if it had trained that phase itself.

If that phase is the last one, nothing is left to train: the same weights are evaluated under other settings.
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
from anomaly_lab.experiment import checkpoint_files, compose, fingerprint, record, run_folder
from anomaly_lab.types import UserError


@dataclass(frozen=True)
class WarmStart:
    """Weights at the end of a finished phase of another run, with its fake pool and provenance.

    Attributes:
        source: folder of the other run.
        phase: name of the phase.
        phases: iterations by name of the phases up to and including that one, in order.
        checkpoint: the file of the weights.
        state: the detector's state in that file.
        facts: provenance of the other run.
    """

    source: Path
    phase: str
    phases: dict[str, int]
    checkpoint: Path
    state: dict[str, Tensor]
    facts: dict[str, Any]

    @classmethod
    def open(cls, path: str, phase: str = "gan") -> WarmStart:
        """Read the newest checkpoint of a run.

        Args:
            path: the run folder.
            phase: the last phase to reuse.

        Raises:
            UserError: there is no such run, checkpoint or phase, or the phase is not finished.

        Examples:
            >>> start = WarmStart.open("runs/wgan_abmnist/20260101-120000-laptop-1a2b")  # doctest: +SKIP
            >>> start.apply_to(detector)  # doctest: +SKIP
        """
        source = run_folder.open_run(path)
        facts = record.read_provenance(source, needs=("detector",))
        newest = checkpoint_files.final(source, facts)
        phases: dict[str, int] = facts.get("detector", {}).get("phases", {})
        if phase not in phases:
            raise UserError(
                f"start_from={path}: the run has no phase {phase}, only {', '.join(phases)}; set start_phase"
            )
        names = list(phases)
        reused = {name: phases[name] for name in names[: names.index(phase) + 1]}
        state: dict[str, Tensor] = checkpoint_files.load(newest)["state_dict"]
        if int(state["iteration"]) < sum(reused.values()):
            raise UserError(f"start_from={path}: phase {phase} is not finished; continue with: make resume RUN={path}")
        return cls(source, phase, reused, newest, state, facts)

    def apply_to(self, detector: Detector) -> None:
        """Load the networks of all phases up to this one into a detector and set its iteration to their end.

        A detector without this phase is left unchanged; it uses the fake pool only.

        Raises:
            UserError: the detector's phases or networks differ from those of the run.
        """
        span = detector.schedule.span(self.phase)
        if not span:
            return
        passed = [phase for phase in detector.schedule if detector.schedule.span(phase.name).stop <= span.stop]
        if (here := {phase.name: phase.iterations for phase in passed}) != self.phases:
            theirs, ours = (", ".join(f"{name} {n}" for name, n in lengths.items()) for lengths in (self.phases, here))
            raise UserError(
                f"start_from={self.source}: its iterations up to {self.phase} are {theirs}, but this experiment has "
                f"{ours}; set the same lengths"
            )
        moved = dict.fromkeys(name for phase in passed for name in phase.networks)
        whole = span.stop == detector.schedule.iterations  # then also counters and averages outside the networks
        kept = {*moved, "augmentation"}  # the phase also adapts ADA's p
        state = detector.state_dict()
        loaded, expected = (
            {key: value for key, value in values.items() if whole or key.split(".")[0] in kept}
            for values in (self.state, state)
        )
        if {key: value.shape for key, value in loaded.items()} != {key: value.shape for key, value in expected.items()}:
            names = " and ".join(moved)
            raise UserError(
                f"start_from={self.source}: its {names} differ from this detector's; set the same sizes and augment_d"
            )
        detector.load_state_dict({**state, **loaded, "iteration": state["iteration"].new_tensor(span.stop)})

    def record(self) -> dict[str, Any]:
        """Return the facts for the new run's provenance.

        Returns:
            run, checkpoint (whose name includes its checksum), phase, iterations, seconds, a hash of the settings
            without its seed, and the caveats about how the weights were chosen.
        """
        caveats = self.facts["detector"].get("caveats", [])
        return {
            "run": str(self.facts.get("run", self.source.name)),
            "id": self.facts.get("id"),
            "checkpoint": self.checkpoint.name,
            "phase": self.phase,
            "iterations": self.phases[self.phase],
            "seconds": self.facts.get("seconds", {}).get(self.phase),
            "settings": self._settings(),
            "caveats": [caveat for caveat in caveats if caveat.startswith("callbacks.")],
        }

    def _settings(self) -> str:
        """Return a text that starts of other settings, code or starts do not share; seeds do not matter."""
        code, before = self.facts.get("code") or "", self.facts.get("started_from") or {}
        own = fingerprint.of_repeats(compose.read(self.source / "config.yaml"))
        parts = [own, code.get("training", "") if isinstance(code, dict) else code, before.get("settings") or ""]
        return "-".join(filter(None, parts))

    def link_into(self, run: Path, with_checkpoint: bool) -> None:
        """Put the fake pool, if there is one, into the folder of a new run; as hard links where possible.

        Args:
            run: the new run folder.
            with_checkpoint: whether to add the checkpoint, needed if the new run will not train and write its own.
        """
        for file in (self.source / fake_pool.FOLDER).glob("*.npy"):
            _link(file, run / fake_pool.FOLDER / file.name)
        if with_checkpoint:
            _link(self.checkpoint, run / self.checkpoint.relative_to(self.source))


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(file.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(file, target)
