"""What the weights of a pretrained image classifier expect to see."""

from typing import Literal

import torch
from torch import Tensor, nn

Normalisation = Literal["unit", "imagenet", "caffe"]
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green, blue in [0, 1]
_CAFFE_MEAN = (104 / 255, 117 / 255, 123 / 255)  # of its blue, green, red


class Normalised(nn.Module):
    """image [B, 3, H, W] in [0, 1], red first -> the same as the weights expect it.

    Args:
        normalisation: `unit` the image as it is, `imagenet` less ImageNet's mean and divided by its deviation
            (torchvision's weights), `caffe` blue first, 0..255 less (104, 117, 123).
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
