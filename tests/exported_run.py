"""A run that is trained in seconds, and exports of it."""

from pathlib import Path

from data.conftest import write_headct

from anomaly_lab.experiment import config
from anomaly_lab.pipeline import engine

SIDE = 32


def trained(folder: Path, *words: str, detector: str = "pca") -> Path:
    """The folder of a finished run on thirteen pictures: of PCA, or another detector that is fitted at once."""
    write_headct(folder / "headct")
    sizes = [f"data.patch_size=[{SIDE},{SIDE}]", "data.batch_size=4", "data.split.train_normals=8"]
    places = [f"runs={folder / 'runs'}", f"data.root={folder / 'headct'}", f"data.store.folder={folder / 'store'}"]
    split = ["data.split.val_fraction=0.25", "data.protocol=random", "data.group=patient"]
    short = ["budget=smoke", "callbacks.wandb=null", "callbacks.health=null", "evaluation.replicates=20"]
    return engine.train(config.load(f"{detector}_headct", [*short, *sizes, *places, *split, *words]))
