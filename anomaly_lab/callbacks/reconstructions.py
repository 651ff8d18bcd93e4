"""Save pictures of validation normals above their reconstructions while a detector is trained."""

from pathlib import Path
from typing import Annotated

import pytorch_lightning as pl
import torch
from torch import Tensor

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.callbacks.samples import grid, png
from anomaly_lab.data.datamodule import data_of
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.types import Batch, Range


class Reconstructions(RunCallback):
    """Writes samples/reconstructions/<iteration>.png after epochs 1, 2, 4, 8, … and the last, of whatever reconstructs.

    Each pair of rows shows the same validation normals, and below each of them what the detector makes of it. The
    epochs are so few because some detectors search for a reconstruction.

    Args:
        images: validation normals that are shown; 0 for no pictures.

    Examples:
        >>> Reconstructions(images=16).images  # on the command line: callbacks.reconstructions.images=16
        16
    """

    changes_scores = False

    def __init__(self, images: Annotated[int, Range("[0, 256]")] = 8) -> None:
        self.images = images
        self._shown: Tensor | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parts = list(data_of(trainer).images("val", at_most=self.images)) if self.images else []
        self._shown = torch.cat(parts)[: self.images] if parts else None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        epoch = trainer.current_epoch + 1
        if not trainer.is_global_zero or self._shown is None or not pl_module.ready:
            return
        if epoch & (epoch - 1) and not pl_module.finished:
            return
        pl_module.eval()  # the next training_step sets the modes it needs
        found = pl_module.score(Batch(image=self._shown.to(pl_module.device))).reconstruction
        if found is not None:
            folder = Path(trainer.default_root_dir) / "samples" / "reconstructions"
            folder.mkdir(parents=True, exist_ok=True)
            picture = png(pairs(self._shown, found.detach().cpu()))
            write_atomic(folder / f"{pl_module.iterations_done:08d}.png", picture)


def pairs(image: Tensor, reconstruction: Tensor, side: int = 8) -> Tensor:
    """Arrange images above their reconstructions; volumes by their middle slice.

    Args:
        image: [n, C, *S] in [-1, 1].
        reconstruction: of the same shape.
        side: images per row; the last row is filled up with black.

    Returns:
        uint8 [2 · rows · H, side · W, C].

    Examples:
        >>> pairs(torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), side=2)[..., 0].tolist()
        [[255, 255], [128, 128]]
    """
    while image.ndim > 4:
        image, reconstruction = (part[:, :, part.shape[2] // 2] for part in (image, reconstruction))
    side = min(side, len(image))
    rows = []
    for both in zip(torch.split(image, side), torch.split(reconstruction, side), strict=True):
        for part in both:
            missing = part.new_full((side - len(part), *part.shape[1:]), -1.0)
            rows.append(torch.cat([part, missing]))
    return grid(torch.cat(rows), side)
