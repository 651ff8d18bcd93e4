"""Builds the store of the twin of `nifti`, slowly if asked to, and says whether it was this process that built."""

import sys
import time

from anomaly_lab.data.datamodule import StoreOptions, Twin
from anomaly_lab.data.datasets.nifti import Nifti
from anomaly_lab.data.preprocessing.patches import PatchSampling
from anomaly_lab.data.preprocessing.transforms import Volume
from anomaly_lab.data.store import build

folder, pause = sys.argv[1], float(sys.argv[2])
add = build.Writer.add


def slowly(writer, case):
    add(writer, case)
    time.sleep(pause)


build.Writer.add = slowly
data = Nifti(
    root="nowhere",
    source="twin",
    twin=Twin(size=80),
    patch_size=(16, 16),
    volume=Volume(zscore=3.0),
    cut=PatchSampling(label="mask", overlap=0.5, foreground=0.5, random=20),
    batch_size=4,
    store=StoreOptions(folder=folder),
)
data.setup()
print("reused" if data.store.reused else "built", data.store.folder.name, data.store.fingerprint)
