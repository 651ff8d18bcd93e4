"""A small experiment on a folder of thirteen pictures."""

from pathlib import Path

from omegaconf import DictConfig

from anomaly_lab.experiment import config


def settings(tmp_path: Path, *overrides: str) -> DictConfig:
    """fanogan_headct at 32×32 on a folder of thirteen pictures."""
    places = [f"runs={tmp_path / 'runs'}", f"data.root={tmp_path / 'headct'}", f"data.store_dir={tmp_path / 'store'}"]
    sizes = ["data.patch_size=[32,32]", "data.train_normals=8", "data.val_fraction=0.25", "data.batch_size=4"]
    return config.load("fanogan_headct", ["budget=smoke", *places, *sizes, "detector.width=4", *overrides])
