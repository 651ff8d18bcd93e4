"""Speed and memory of data preparation and loading, compared with MONAI on the same files and the same windows."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomaly_lab.data.batches import TrainingImages
from anomaly_lab.data.datamodule import StoreOptions
from anomaly_lab.data.datasets.nifti import Nifti
from anomaly_lab.data.datasets.sixray import SIXray
from anomaly_lab.data.preprocessing.augmentation import Augmentation
from anomaly_lab.data.preprocessing.patches import PatchSampling
from anomaly_lab.data.preprocessing.transforms import Volume
from anomaly_lab.data.store.store import Store, open_or_build
from anomaly_lab.data.twins.brain import draw_brain, write_volume

Times = dict[str, list[float]]
SHAPE = (240, 240, 155)  # voxels of a BraTS volume
NUM_VOLUMES = 7  # yield slightly more than 20 000 windows
MEMORY_GB = 10.0  # uncompressed size of the volumes in the memory benchmark
PAIRS = (  # (ours, theirs): the names whose ratio is reported
    ("store", "MONAI pipeline"),
    ("store batch", "CacheDataset batch"),
    ("store batch as it is", "CacheDataset batch as it is"),
)
BAGS = 1_059_231  # images in SIXray


def store_and_batches(rounds: int) -> Times:
    """Time building a store of about 20 000 patches and fetching batches of 64, with this package and with MONAI.

    Args:
        rounds: recorded rounds, after one warm-up round.

    Returns:
        Seconds by name, one value per round; `PAIRS` says which names compare. A fetch is timed per batch.

    Raises:
        RuntimeError: MONAI extracts another number of windows, so the times would not compare.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = write_volumes(Path(folder) / "volumes", NUM_VOLUMES)
        times: Times = {name: [] for pair in PAIRS for name in pair}
        for round_number in range(rounds + 1):
            store, ours = _timed(lambda: _build_store(root, Path(folder) / "store"))
            patches, theirs = _timed(lambda: _monai_windows(root))
            if len(patches) != len(store.images):
                raise RuntimeError(
                    f"MONAI extracts {len(patches)} windows, the store holds {len(store.images)}: the times do not "
                    "compare; check that both pipelines cut the same windows"
                )
            fetch_seconds = _fetch(store, patches)
            if round_number:
                for name, seconds in zip(times, (ours, theirs, *fetch_seconds), strict=True):
                    times[name].append(seconds)
            shutil.rmtree(Path(folder) / "store")
    return times


def memory(gigabytes: float = MEMORY_GB) -> Times:
    """Measure the peak memory of a process that builds a store, its imports included.

    Args:
        gigabytes: uncompressed size of the volumes the store is built from.

    Returns:
        One value in GB, under a name that says the size.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = write_volumes(Path(folder) / "volumes", 4, suffix=".nii")
        originals = sorted(root.iterdir())
        for number in range(len(originals), round(gigabytes * 1e9 / (2 * np.prod(SHAPE)))):
            copy = root / f"patient{number:04d}"
            copy.mkdir()
            for path in originals[number % len(originals)].iterdir():
                os.link(path, copy / path.name)  # a hard link saves disk space and is read like any other file
        code = (
            "import sys; from pathlib import Path; from anomaly_lab.bench.data import _build_store, _peak_gb; "
            "_build_store(Path(sys.argv[1]), Path(sys.argv[2]), per_scan=50); print(_peak_gb())"
        )
        words = [sys.executable, "-c", code, str(root), str(Path(folder) / "store")]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
    return {f"peak of a build of {gigabytes:g} GB, GB": [float(done.stdout.split()[-1])]}


def million_rows() -> Times:
    """Measure time and peak memory of listing and splitting SIXray1000's million images, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        root = _write_lists(Path(folder))
        code = (
            "import sys, json; from anomaly_lab.bench.data import _list_and_split; "
            "print(json.dumps(_list_and_split(sys.argv[1])))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(root)], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {"list and split": [result["seconds"]], "peak of the list, GB": [result["peak_gb"]]}


def write_volumes(root: Path, count: int, suffix: str = ".nii.gz") -> Path:
    """Write int16 synthetic brains of BraTS size, each with a block-shaped lesion, and return `root`.

    Args:
        root: folder to fill: `patient0000/flair.nii.gz`, `patient0000/lesion.nii.gz`, …
        count: number of volumes.
        suffix: ".nii.gz", or ".nii" for uncompressed files.
    """
    for number in range(count):
        brain = draw_brain(np.random.default_rng(number), SHAPE, (1.0, 1.0, 1.0))
        image = (brain.image * 500).astype(np.int16)
        lesion = np.zeros(SHAPE, np.uint8)
        lesion[100:120, 100:120, 60:80] = image[100:120, 100:120, 60:80] != 0
        folder = root / f"patient{number:04d}"
        folder.mkdir(parents=True)
        for name, values in (("flair", image), ("lesion", lesion)):
            write_volume(folder / f"{name}{suffix}", values, np.diag([-1.0, -1, 1, 1]))
    return root


def _build_store(root: Path, store_dir: Path, per_scan: int = 0) -> Store:
    suffix = ".nii.gz" if any(root.rglob("*.nii.gz")) else ".nii"
    data = Nifti(
        root=str(root),
        images=f"**/flair{suffix}",
        masks=f"lesion{suffix}",
        patch_size=(32, 32),
        volume=Volume(zscore=3.0),
        cut=PatchSampling(label="mask", overlap=0.5, foreground=0.9, per_scan=per_scan),
        store=StoreOptions(folder=str(store_dir)),
    )
    return open_or_build(data.plan(data.cases(root)), store_dir, "fail")


def _monai_windows(root: Path) -> np.ndarray:
    """Extract the windows of all volumes with MONAI's dictionary transforms: uint16 [N, 1, 32, 32], without masks."""
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.dictionary import NormalizeIntensityd
    from monai.transforms.io.dictionary import LoadImaged
    from monai.transforms.spatial.dictionary import GridPatchd, Orientationd
    from monai.transforms.utility.dictionary import CopyItemsd, EnsureChannelFirstd

    keys = ["image", "mask"]
    overlap: Any = (0, 0, 0.5, 0.5)  # one value per axis works, although MONAI annotates a single float
    warnings.filterwarnings("ignore", category=UserWarning)
    pipeline = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            Orientationd(keys, axcodes="IPL", labels=None),
            CopyItemsd(["image"], names=["raw"]),
            NormalizeIntensityd("image", nonzero=True),
            GridPatchd([*keys, "raw"], patch_size=(1, 32, 32), overlap=overlap),
        ]
    )
    windows = []
    for folder in sorted(root.iterdir()):
        patches: Any = pipeline({"image": folder / "flair.nii.gz", "mask": folder / "lesion.nii.gz"})
        foreground = (np.asarray(patches["raw"]) != 0).mean((1, 2, 3, 4)) >= 0.9
        values = (np.asarray(patches["image"])[foreground][:, :, 0] / 3 + 1) / 2
        windows.append(np.rint(values.clip(0, 1) * 65535).astype(np.uint16))
    return np.concatenate(windows)


def _fetch(store: Store, patches: np.ndarray) -> list[float]:
    """Time a batch of 64 from the store and from MONAI's CacheDataset of the same patches, with and without flips."""
    from monai.data.dataloader import DataLoader
    from monai.data.dataset import CacheDataset
    from monai.transforms.compose import Compose
    from monai.transforms.spatial.dictionary import RandFlipd
    from monai.transforms.utility.dictionary import EnsureTyped

    batches, size, seconds = 20, 64, []
    draws = np.arange(batches * size).reshape(batches, 1, size)
    items = [{"image": patch.astype(np.float32) / 32767.5 - 1} for patch in patches[: batches * size]]
    for augmentation, random in ((Augmentation(flip=0.5), [RandFlipd("image", prob=0.5, spatial_axis=1)]), (None, [])):
        images = TrainingImages(store, np.arange(len(store.images)), augmentation, seed=0)
        seconds.append(_timed(partial(_load_all, images, draws))[1] / batches)
        cached = CacheDataset(items, Compose([EnsureTyped(["image"]), *random]), progress=False)
        loader = DataLoader(cached, batch_size=size, shuffle=True)
        seconds.append(_timed(partial(list, loader))[1] / batches)
    return seconds


def _load_all(images: TrainingImages, draws: np.ndarray) -> None:
    for rows in draws:
        images[rows]


def _write_lists(root: Path) -> Path:
    """Write lists of the size of SIXray1000's, without any image, and return `root`."""
    (root / "ImageSet" / "1000").mkdir(parents=True)
    (root / "JPEGImage").mkdir()
    header = "name,Gun,Knife,Wrench,Pliers,Scissors"
    positives, train = 1000, BAGS * 4 // 5
    lines = [f"P{i:05d},1,-1,-1,-1,-1" for i in range(positives)]
    lines += [f"N{i:07d},-1,-1,-1,-1,-1" for i in range(BAGS - positives)]
    shuffled = [lines[i] for i in np.random.default_rng(0).permutation(len(lines))]
    for name, rows in (("train", shuffled[:train]), ("test", shuffled[train:])):
        (root / "ImageSet" / "1000" / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def _list_and_split(root: str) -> dict[str, float]:
    start = time.perf_counter()
    options = StoreOptions(enabled=False)
    data = SIXray(root=root, subset=1000, store=options, in_channels=3, source="real", patch_size=(64, 64))
    data.setup()
    seconds = time.perf_counter() - start
    return {"rows": len(data.store.index), "seconds": seconds, "peak_gb": _peak_gb()}


def _peak_gb() -> float:
    """Return this process's peak memory in GB; unlike `ru_maxrss`, it does not start at the parent process's peak."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 2**20


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - start
