"""Teacher networks: frozen image classifiers of torchvision, with the outputs of four layers tapped.

Their weights are read from a local file or an installed package and never downloaded; random weights are for trials.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from anomaly_lab.networks.backbones import ARCHITECTURES, Stages, draw, load, torchvision_network
from anomaly_lab.networks.pretrained import Normalisation, Normalised, digest, read_weights
from anomaly_lab.types import UserError

Pool = Callable[[], nn.Module]
_HALVE: Pool = partial(nn.MaxPool2d, 2)


class Backbone(NamedTuple):
    """A classifier, cut into five blocks; all but the first end in a tap.

    Attributes:
        trunk: name of the submodule that holds the layers in sequence; empty for the classifier itself.
        taps: names of the tapped layers, the children of the trunk with which a block ends.
        widths: channels at the end of each block.
        pools: max-pooling with the windows by which each block shrinks the image, whichever layer does it.
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
    """Frozen classifier: RGB image [B, 3, H, W] in [0, 1] -> the four tapped layers, each [B, C', H', W'].

    The weights are He-normal until `load` replaces them. They get no gradient, and the network stays in eval mode.

    Args:
        name: a key of BACKBONES.
        normalisation: input normalisation that the weights expect.

    Examples:
        >>> [tuple(tap.shape) for tap in Teacher("squeezenet1_0")(torch.zeros(1, 3, 64, 64))]
        [(1, 96, 14, 14), (1, 256, 7, 7), (1, 512, 3, 3), (1, 512, 3, 3)]
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
        """Read the weights from a state dict of torchvision's network.

        Returns:
            The first 16 hex digits of the file's SHA-256.

        Raises:
            UserError: the file is missing or contains something else.
        """
        if not Path(file).is_file():
            url = get_model_weights(self.name).DEFAULT.url
            raise UserError(
                f"detector.teacher_weights={file or '(empty)'}: no such file; get torchvision's {self.name} from {url} "
                "(with detector.teacher_input=imagenet), or set detector.teacher_weights=random for a trial"
            )
        prefix = f"{self.backbone.trunk}.".removeprefix(".")
        wanted = {prefix + key: value for key, value in self.trunk.state_dict().items()}
        weights = read_weights(file, wanted, f"torchvision's {self.name}")
        self.trunk.load_state_dict({key.removeprefix(prefix): value for key, value in weights.items()})
        return digest(file)

    def forward(self, image: Tensor) -> list[Tensor]:
        h, taps = self.normalised(image), []
        for name, layer in self.trunk.named_children():
            h = layer(h)
            if name in self.backbone.taps:
                taps.append(h)
        return taps


class PackagedTeacher(nn.Module):
    """Frozen EfficientNet-Lite0, whose weights a package brings: RGB image [B, 3, H, W] in [0, 1] -> its four stages.

    Gradients flow to the image.

    Examples:
        >>> [tuple(tap.shape) for tap in PackagedTeacher()(torch.zeros(1, 3, 64, 64))]  # random weights: see `load`
        [(1, 24, 16, 16), (1, 40, 8, 8), (1, 112, 4, 4), (1, 1280, 2, 2)]
    """

    name = "efficientnet_lite0"

    def __init__(self) -> None:
        super().__init__()
        self.normalised, self.stages = Normalised(ARCHITECTURES[self.name].normalisation), Stages(self.name)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "PackagedTeacher":
        return super().train(False)

    def load(self, file: str) -> str:
        """Read the weights from a file; those of the installed package if its name is empty.

        Returns:
            The first 16 hex digits of the file's SHA-256.

        Raises:
            UserError: the file or the package is missing or contains something else.
        """
        try:
            return load([self.stages], file or "package")
        except UserError as error:  # whose words are those of a classifier's settings
            said = str(error).replace("detector.weights", "detector.teacher_weights")
            raise UserError(said.replace("detector.backbone", "detector.teacher")) from error

    def forward(self, image: Tensor) -> list[Tensor]:
        taps: list[Tensor] = self.stages(self.normalised(image))
        return taps


def _trunk(name: str) -> nn.Sequential:
    """Return the layers up to the last tap, with uninitialised weights."""
    backbone = BACKBONES[name]
    with torch.device("meta"):  # no memory: VGG's dense layers alone would take half a gigabyte
        layers = list(torchvision_network(name).get_submodule(backbone.trunk).named_children())
    names = [child for child, _ in layers]
    trunk = nn.Sequential(OrderedDict(layers[: names.index(backbone.taps[-1]) + 1]))
    for module in trunk.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # the next layer must not overwrite a tap
    return trunk.to_empty(device="cpu")
