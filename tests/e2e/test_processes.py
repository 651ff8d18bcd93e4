"""Several processes: no family and no callback hangs, the death of one is everybody's, launchers are understood."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import ROOT, launch, small, the_run

from anomaly_lab.experiment import run_folder

pytestmark = pytest.mark.slow
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
FAMILIES = (  # one of each: GAN with a pool, GANomaly's, bidirectional, classifiers of a pool, SVDD, kernels, distillation
    "adgan_headct,detector.width=4,detector.gan_iterations=4,detector.critic_iterations=3,callbacks.fakepool.every=2,"
    "callbacks.fakepool.count=3",
    "fanogan_headct,detector.width=4,detector.gan_iterations=4,detector.encoder_iterations=3,"
    "+callbacks.best_test_epoch._target_=anomaly_lab.callbacks.best_test_epoch.BestTestEpoch",
    "ganomaly_headct,detector.width=4,detector.iterations=4",
    "alad_headct",
    "pool_cnn_headct",
    "deep_svdd_headct",
    "ocsvm_headct",
    "multi_kd_headct",
)


def everything(base: Path, store: Path) -> list[str]:
    """Overrides for tiny runs of any detector; all 42 judged pictures are one batch, so most processes have none."""
    return [
        "budget=smoke",
        f"runs={base / 'runs'}",
        "data.source=twin",
        f"data.store.folder={store}",
        "data.twin.size=60",
        "data.split.train_normals=20",
        "data.patch_size=[32,32]",
        "data.batch_size=8",
        "data.epoch_length=3",
        "callbacks.wandb.mode=offline",
        "evaluation.replicates=20",
    ]
