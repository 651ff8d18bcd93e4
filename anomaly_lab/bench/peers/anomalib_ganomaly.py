"""anomalib's GANomaly as a contender of the peer benchmark: its Engine on one fixed batch, in timed turns.

Runs in an environment with the packages of anomalib.txt.

Usage: python anomalib_ganomaly.py PRECISION [PADDING]
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
    """Train with anomalib's defaults until standard input is closed; see `pace` for the protocol.

    Args:
        precision: of the Engine, as "32-true" or "bf16-mixed".
        padding: of the encoders' first convolutions; anomalib's own is 4, the authors' code has 1.
    """
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
    loader: Any = DataLoader(batches, batch_size=None, collate_fn=lambda item: item)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        engine = Engine(
            default_root_dir=folder, accelerator="cpu", devices=1, max_epochs=1, precision=precision, **quiet
        )
        engine.fit(model, train_dataloaders=loader)


if __name__ == "__main__":
    main(*sys.argv[1:])
