"""anomalib's GANomaly as a contender: its Engine on a ready batch, in rounds. Runs where anomalib.txt is installed.

Usage: python anomalib_ganomaly.py PRECISION [PADDING]; PADDING: of the encoders' first layers, anomalib's own is 4.
"""

import sys
import tempfile
from importlib import metadata
from typing import Any

import torch
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from anomalib.models import Ganomaly
from anomalib.pre_processing import PreProcessor
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Resize

from anomaly_lab.bench.pace import BATCH, Pace


def main(precision: str, padding: str = "4") -> None:
    """Train with anomalib's defaults until the input ends."""
    torch.manual_seed(0)
    size = BATCH[2:]
    model = Ganomaly(batch_size=BATCH[0], pre_processor=PreProcessor(Resize(size)), evaluator=False, visualizer=False)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.padding == (4, 4):
            layer.padding = (int(padding), int(padding))
    networks = {"generator": model.model.generator, "discriminator": model.model.discriminator}
    weights = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    versions = {"version": metadata.version("anomalib"), "torch": torch.__version__}
    pace = Pace(**versions, threads=torch.get_num_threads(), weights=weights)
    model.training_step = pace.keep(model.training_step)
    batch = ImageBatch(image=torch.rand(BATCH) * 2 - 1)
    batches: Any = [batch] * 10_000
    ready: Any = DataLoader(batches, batch_size=None, collate_fn=lambda item: item)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        engine = Engine(
            default_root_dir=folder, accelerator="cpu", devices=1, max_epochs=1, precision=precision, **quiet
        )
        engine.fit(model, train_dataloaders=ready)


if __name__ == "__main__":
    main(*sys.argv[1:])
