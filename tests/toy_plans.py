"""The plan of a small store: three normal pictures and one with a lesion."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomaly_lab.data.preprocessing.transforms import Preprocessing
from anomaly_lab.data.readers.files import is_deep, read_scan
from anomaly_lab.data.store.plan import StorePlan
from anomaly_lab.types import Case


def write_pictures(root: Path) -> list[Case]:
    """Four pictures of 12×12, the last one anomalous with its mask."""
    root.mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12), np.uint8)).save(root / f"{i}.png")
    lesion = np.zeros((12, 12), np.uint8)
    lesion[3:6, 3:6] = 255
    Image.fromarray(lesion).save(root / "mask.png")
    cases = [Case(str(i), f"p{i}", root / f"{i}.png", 0) for i in range(3)]
    return [*cases, Case("3", "p3", root / "3.png", 1, root / "mask.png")]


def plan_of(root: Path, cases: list[Case], **changes: Any) -> StorePlan:
    """Whole pictures of 12×12, but for what is changed."""
    parts = {"preprocessing": Preprocessing((12, 12)), "patch_sampling": None, "patch_size": (12, 12), "deep": is_deep}
    return StorePlan("toy", root, cases, lambda case: read_scan(case, 1), in_channels=1, **(parts | changes))


def again(plan: StorePlan, **changes: Any) -> StorePlan:
    """The same plan anew, nothing cached, but for what is changed."""
    return plan_of(plan.root, list(plan.cases), **changes)
