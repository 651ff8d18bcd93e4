"""Runs `python -m anomaly_lab …` and dies by SIGKILL where the first argument says.

`never`, `iteration:N` (just before iteration N + 1), or `checkpoint:N` (while the N-th checkpoint is being written).
"""

import os
import runpy
import signal
import sys
from pathlib import Path

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import run_folder

where, _, number = sys.argv[1].partition(":")
step, sync = Detector.training_step, os.fsync
written = 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def training_step(self, batch, batch_idx):
    if where == "iteration" and self.iterations_done == int(number):
        die()
    step(self, batch, batch_idx)


def fsync(descriptor):
    global written
    sync(descriptor)
    if ".ckpt." in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
        written += 1
        if where == "checkpoint" and written == int(number):
            die()


Detector.training_step = training_step
run_folder.os.fsync = fsync
sys.argv = ["anomaly_lab", *sys.argv[2:]]
runpy.run_module("anomaly_lab", run_name="__main__")
