"""A small experiment on a folder of thirteen pictures."""

from pathlib import Path

from omegaconf import DictConfig

from anomaly_lab.experiment import config


def settings(tmp_path: Path, *overrides: str) -> DictConfig:
    """fanogan_headct at 32×32 on a folder of thirteen pictures."""
    return config.load("fanogan_headct", [*words(tmp_path), *overrides])


def words(tmp_path: Path) -> list[str]:
    """What makes fanogan_headct so small."""
    places = {"runs": tmp_path / "runs", "data.root": tmp_path / "headct", "data.store.folder": tmp_path / "store"}
    sizes = {"data.patch_size": "[32,32]", "data.batch_size": 4, "detector.width": 4}
    split = {"data.split.train_normals": 8, "data.split.val_fraction": 0.25}
    split |= {"data.protocol": "random", "data.group": "patient"}  # as of any data set
    return ["budget=smoke", *(f"{key}={value}" for key, value in (places | sizes | split).items())]
