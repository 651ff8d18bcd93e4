"""Input normalisation of pretrained image classifiers."""

from typing import Literal

import torch
from torch import Tensor, nn

Normalisation = Literal["unit", "imagenet", "caffe"]
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of red, green, blue on ImageNet, in [0, 1]
_CAFFE_MEAN = (104 / 255, 117 / 255, 123 / 255)  # of blue, green, red on ImageNet


class Normalised(nn.Module):
    """Normalisation: RGB image [B, 3, H, W] in [0, 1] -> the input that the weights expect.

    Args:
        normalisation: `unit` leaves the image as it is; `imagenet` subtracts ImageNet's mean and divides by its
            standard deviation (torchvision's weights); `caffe` converts to BGR in 0..255 and subtracts (104, 117, 123).

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
        }[normalisation]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image.flip(1) if self.blue_first else image).sub(self.mean) / self.deviation
