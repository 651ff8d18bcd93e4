"""Photographs that come with scikit-learn: whoever recognises nothing on them has been given other colours."""

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor


def photograph(name: str, side: int = 224) -> Tensor:
    """The middle of a photograph of scikit-learn, RGB [1, 3, side, side] in [0, 1]."""
    picture = Image.fromarray(load_sample_image(f"{name}.jpg"))
    width, height = picture.size
    short = 256
    picture = picture.resize((width * short // min(width, height), height * short // min(width, height)))
    left, top = (picture.size[0] - side) // 2, (picture.size[1] - side) // 2
    pixels = np.array(picture.crop((left, top, left + side, top + side)), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]
