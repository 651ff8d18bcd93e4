"""Teachers: torchvision's image classifiers, frozen, with four of their layers tapped.

Their weights come from a local file and are never downloaded; random ones are for trying things out.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from anomaly_lab.networks.pretrained import Normalisation, Normalised
from anomaly_lab.types import UserError

Pool = Callable[[], nn.Module]
_HALVE: Pool = partial(nn.MaxPool2d, 2)


class Backbone(NamedTuple):
    """A classifier, cut into five blocks. All but the first end in a tap.

    Attributes:
        trunk: its submodule with the layers in a row; empty for the classifier itself.
        taps: names of the tapped layers, the children of the trunk after which a block ends.
        widths: channels at the end of each block.
        pools: max-pooling with the windows by which each block shrinks the image, whatever the layer that does it.
    """

    trunk: str
    taps: tuple[str, str, str, str]
    widths: tuple[int, int, int, int, int]
    pools: tuple[Pool, Pool, Pool, Pool, Pool]


_SQUEEZE: Pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
_STRIDE: Pool = partial(nn.MaxPool2d, 3, 2, padding=1)
BACKBONES = {
    "vgg16": Backbone("features", ("9", "16", "23", "30"), (64, 128, 256, 512, 512), (_HALVE,) * 5),  # pool2..pool5
    "squeezenet1_0": Backbone(  # maxpool1, maxpool4, maxpool8, fire9
        "features",
        ("2", "6", "11", "12"),
        (96, 96, 256, 512, 512),
        (partial(nn.MaxPool2d, 7, 2), _SQUEEZE, _SQUEEZE, _SQUEEZE, nn.Identity),
    ),
    "resnet18": Backbone(
        "",
        ("layer1", "layer2", "layer3", "layer4"),
        (64, 64, 128, 256, 512),
        (partial(nn.MaxPool2d, 7, 2, padding=3), _STRIDE, _STRIDE, _STRIDE, _STRIDE),
    ),
}


class Teacher(nn.Module):
    """image [B, 3, H, W] in [0, 1], red first -> the four tapped layers, each [B, C', H', W'].

    Its weights are He-normal until `load` brings others; they get no gradient, and it never leaves eval mode.

    Args:
        name: one of BACKBONES.
        normalisation: what the weights expect.
    """

    def __init__(self, name: str, normalisation: Normalisation = "imagenet") -> None:
        super().__init__()
        self.name, self.backbone = name, BACKBONES[name]
        self.normalised, self.trunk = Normalised(normalisation), _trunk(name)
        draw(self.trunk)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        return super().train(False)

    def load(self, file: str) -> str:
        """Take the weights from a state dict of torchvision's network; returns the file's SHA-256, 16 hex digits.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        if not Path(file).is_file():
            url = get_model_weights(self.name).DEFAULT.url
            raise UserError(
                f"detector.teacher_weights={file or '(empty)'}: no such file; get torchvision's {self.name} from {url} "
                "(with detector.teacher_input=imagenet), or set detector.teacher_weights=random to try things out"
            )
        try:
            weights = torch.load(file, map_location="cpu", weights_only=True)
            prefix, wanted = f"{self.backbone.trunk}.".removeprefix("."), self.trunk.state_dict().keys()
            found = {key: weights[prefix + key] for key in wanted if prefix + key in weights}
            self.trunk.load_state_dict(found)
        except Exception as error:
            raise UserError(f"{file}: not the weights of torchvision's {self.name}; give those") from error
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]

    def forward(self, image: Tensor) -> list[Tensor]:
        h, taps = self.normalised(image), []
        for name, layer in self.trunk.named_children():
            h = layer(h)
            if name in self.backbone.taps:
                taps.append(h)
        return taps


def draw(network: nn.Module) -> None:
    """He-normal convolutions, biases 0: activations neither fade nor grow with depth (≠ code: Xavier)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def _trunk(name: str) -> nn.Sequential:
    """The layers up to the last tap, their weights not yet set."""
    backbone = BACKBONES[name]
    with torch.device("meta"):  # VGG's classifier alone would take half a gigabyte
        layers = list(get_model(name, weights=None).get_submodule(backbone.trunk).named_children())
    names = [child for child, _ in layers]
    trunk = nn.Sequential(OrderedDict(layers[: names.index(backbone.taps[-1]) + 1]))
    for module in trunk.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # a tap must not be overwritten by the layer after it
    return trunk.to_empty(device="cpu")
