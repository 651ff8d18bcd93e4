"""Pretrained image classifiers: the input that their weights expect, and the files in which they come."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from anomaly_lab.types import UserError

Normalisation = Literal["unit", "imagenet", "caffe", "symmetric", "tensorflow"]
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of red, green, blue on ImageNet, in [0, 1]
_CAFFE_MEAN = (104 / 255, 117 / 255, 123 / 255)  # of blue, green, red on ImageNet
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # torchvision's files still have these keys


class Normalised(nn.Module):
    """Normalisation: RGB image [B, 3, H, W] in [0, 1] -> the input that the weights expect.

    Args:
        normalisation: `unit` leaves the image as it is; `imagenet` subtracts ImageNet's mean and divides by its
            standard deviation (torchvision's weights); `caffe` converts to BGR in 0..255 and subtracts (104, 117, 123);
            `symmetric` scales to [-1, 1] (torchvision's Inception v3); `tensorflow` subtracts 127 from values in 0..255
            and divides by 128 (EfficientNet-Lite).

    Examples:
        >>> black = torch.zeros(1, 3, 1, 1)
        >>> Normalised("caffe")(black).flatten().round().int().tolist()
        [-104, -117, -123]
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, normalisation: Normalisation = "imagenet") -> None:
        super().__init__()
        self.blue_first = normalisation == "caffe"
        mean, deviation = {
            "unit": ((0.0,) * 3, (1.0,) * 3),
            "imagenet": (_MEAN, _DEVIATION),
            "caffe": (_CAFFE_MEAN, (1 / 255,) * 3),
            "symmetric": ((0.5,) * 3, (0.5,) * 3),
            "tensorflow": ((127 / 255,) * 3, (128 / 255,) * 3),
        }[normalisation]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image.flip(1) if self.blue_first else image).sub(self.mean) / self.deviation


def read_weights(
    file: str, wanted: Mapping[str, Tensor], network: str, head: tuple[str, ...] | None = None
) -> dict[str, Tensor]:
    """Read the tensors of a state dict.

    Args:
        file: an existing file.
        wanted: a tensor of the right shape for each key to read. Counts of batches of batch norm may be missing.
        network: what the file is to hold, for the message.
        head: beginnings of other keys that the file may contain; None for any.

    Returns:
        A tensor for each key of `wanted`.

    Raises:
        UserError: the file is not a state dict, lacks a key, or has one of another shape or one that is not wanted; the
            message names the first.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"weight": torch.ones(1)}, f"{folder}/weights.pth")
        ...     read_weights(f"{folder}/weights.pth", {"weight": torch.zeros(1)}, network="a layer")
        {'weight': tensor([1.])}
    """
    advice = "give its state dict (.pth)"
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        weights = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in found.items()}
    except Exception as error:
        raise UserError(f"{file}: not the weights of {network}; {advice}") from error
    read: dict[str, Tensor] = {}
    fault = ""
    for key, expected in wanted.items():
        value = weights.get(key)
        if value is None and key.endswith("num_batches_tracked"):  # files older than this buffer
            value = torch.zeros_like(expected)
        if not isinstance(value, Tensor):
            fault = f"it has no '{key}'"
        elif value.shape != expected.shape:
            fault = f"its '{key}' has the shape {list(value.shape)}, not {list(expected.shape)}"
        elif not value.isfinite().all():
            fault = f"its '{key}' is not finite"
        if fault:
            break
        assert isinstance(value, Tensor)
        read[key] = value
    others = () if head is None else [key for key in weights if key not in wanted and not key.startswith(head)]
    if others and not fault:
        fault = f"it has '{others[0]}', which is not part of it"
    if fault:
        raise UserError(f"{file}: not the weights of {network}: {fault}; {advice}")
    return read


def digest(file: str) -> str:
    """Return the first 16 hex digits of a file's SHA-256."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
