"""Runs `python -m anomaly_lab …` in several processes, one of which dies by SIGKILL: `die_in.py PHASE RANK NOTE …`.

PHASE is `store`, the name of a training phase, `validation`, `scoring`, `evaluation` or `report`. What the first
process does alone it begins with the file NOTE and never ends, so that another one can die meanwhile.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from anomaly_lab.__main__ import app
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.pipeline import engine

phase, victim, note = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
rank = int(os.environ.get("LOCAL_RANK", "0"))


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: object, name: str, reached: str, alone: bool = False) -> None:
    """Let this process die, or begin without end, where the phase begins."""
    original = getattr(owner, name)

    def wrapped(*args, **kwargs):
        if reached == phase or (reached == "training" and args[0].phase.name == phase):
            if int(os.environ.get("LOCAL_RANK", "0")) == victim:
                die()
            if alone:
                note.touch()
                time.sleep(300)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def die_when_the_first_is_alone() -> None:
    while not note.exists():
        time.sleep(0.1)
    time.sleep(1)
    die()


before(PatchDataModule, "_open_store", "store", alone=rank == 0)
before(Detector, "training_step", "training")
before(Detector, "validation_step", "validation")
before(engine, "score_all", "scoring")
before(engine, "evaluate_run", "evaluation", alone=True)
before(engine, "reported", "report", alone=True)
if rank == victim:
    threading.Thread(target=die_when_the_first_is_alone, daemon=True).start()
app(sys.argv[4:])
