"""A data module's arguments as tests like to write them: flat, `train_normals=8` for `split=Split(train_normals=8)`."""

from typing import Any

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.experiment.schema import arguments

SECTIONS = {
    **dict.fromkeys(("train_normals", "val_fraction", "folds", "fold", "contamination"), "split"),
    **dict.fromkeys(("on_bad", "num_workers", "scoring_batch_size", "device"), "store"),
    "fit": "picture",
}
KEYS = {name: (section, name) for name, section in SECTIONS.items()} | {
    "splits": ("split", "file"),
    "resize": ("picture", "size"),
    "twin_seed": ("twin", "seed"),
    "twin_size": ("twin", "size"),
    "store": ("store", "enabled"),
    "store_dir": ("store", "folder"),
}


def sections(**flat: Any) -> dict[str, Any]:
    """The arguments as the constructor takes them; a mapping becomes the dataclass of its section."""
    nested: dict[str, Any] = {name: value for name, value in flat.items() if name not in KEYS}
    for name in flat.keys() & KEYS.keys():
        section, key = KEYS[name]
        nested.setdefault(section, {})[key] = flat[name]
    return arguments("data.", PatchDataModule, nested)
