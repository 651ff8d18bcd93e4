"""Save grids of generated images, always from the same noise."""

import hashlib
import io
from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from anomaly_lab.callbacks.run_callback import RunCallback
from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.types import Count, Range


class Samples(RunCallback):
    """Writes a grid of generated images, samples/<iteration>.png, at the end of each epoch in which it changed.

    Args:
        side: images per row and per column.
        every: epochs between two grids.

    Examples:
        >>> Samples(side=4).side  # a grid of 16 images; on the command line: callbacks.samples.side=4
        4
    """

    changes_scores = False

    def __init__(self, side: Annotated[int, Range("[1, 64]")] = 8, every: Count = 1) -> None:
        self.side, self.every = side, every
        self._last = ""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        if not trainer.is_global_zero or trainer.current_epoch % self.every:
            return
        pl_module.eval()  # the next training_step sets the modes it needs
        with torch.no_grad():
            fake = pl_module.sample(self.side**2, torch.Generator().manual_seed(0))
        if fake is None:
            return
        picture = grid(fake, self.side)
        digest = hashlib.sha256(picture.numpy().tobytes()).hexdigest()
        if digest != self._last:
            name = f"{pl_module.iterations_done:08d}.png"
            write_atomic(Path(trainer.default_root_dir) / "samples" / name, png(picture))
        self._last = digest

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last = state_dict["last"]


def grid(image: Tensor, side: int) -> Tensor:
    """Arrange images in rows.

    Args:
        image: [rows · side, C, H, W] in [-1, 1].
        side: images per row.

    Returns:
        uint8 [rows · H, side · W, C].

    Examples:
        >>> four = torch.tensor([-1.0, 0.0, 0.5, 1.0]).reshape(4, 1, 1, 1)  # four images of one pixel
        >>> grid(four, side=2)[..., 0].tolist()
        [[0, 128], [191, 255]]
    """
    _, c, h, w = image.shape
    rows = image.float().cpu().reshape(-1, side, c, h, w).permute(0, 3, 1, 4, 2)
    return rows.reshape(-1, side * w, c).add(1).mul(127.5).round().clamp(0, 255).byte()


def png(picture: Tensor, **notes: str) -> bytes:
    """Encode a picture as a PNG file.

    Args:
        picture: uint8 [H, W, C], C = 1 (grey) or 3 (RGB).
        notes: stored as text in the file.

    Examples:
        >>> file = png(torch.zeros(2, 3, 1, dtype=torch.uint8), iteration="10")
        >>> Image.open(io.BytesIO(file)).size, Image.open(io.BytesIO(file)).info
        ((3, 2), {'iteration': '10'})
    """
    buffer, text = io.BytesIO(), PngInfo()
    for key, value in notes.items():
        text.add_text(key, value)
    Image.fromarray(picture.squeeze(-1).numpy()).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()
