"""Input features of kernel methods: pixels or features of a pretrained network, and their principal components."""

from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn

from anomaly_lab.networks.pretrained import Normalisation, Normalised, read_weights
from anomaly_lab.types import UserError

EXPLAINED_VARIANCE = 0.95  # share of the variance that the retained principal axes explain


class Pixels(nn.Module):
    """Pixel values: image [B, C, *S] in [-1, 1] -> [B, num_features] in [0, 1].

    Args:
        num_features: number of values of an image.

    Examples:
        >>> Pixels(num_features=2)(torch.tensor([[[[-1.0, 1.0]]]])).tolist()
        [[0.0, 1.0]]
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, image: Tensor) -> Tensor:
        return (image.float().flatten(1) + 1) / 2


class SqueezeNetFeatures(nn.Module):
    """Pooled features of SqueezeNet 1.0: image [B, C, H, W] in [-1, 1] -> mean of the last feature map, [B, 512].

    Iandola et al. 2016. The network is never trained here; `load` reads weights trained on ImageNet.

    Args:
        normalisation: input normalisation that the weights expect.

    Examples:
        >>> SqueezeNetFeatures()(torch.zeros(1, 1, 32, 32)).shape  # random weights: see `load`
        torch.Size([1, 512])
    """

    num_features = 512
    side = 128  # images are resized to this many pixels; at 32, the last feature map would be a single pixel

    def __init__(self, normalisation: Normalisation = "imagenet") -> None:
        super().__init__()
        from torchvision.models import squeezenet1_0  # imported here, because torchvision takes long to import

        self.features = squeezenet1_0(weights=None).features.requires_grad_(False)
        self.normalised = Normalised(normalisation)

    def load(self, file: str) -> None:
        """Read torchvision's weights from a local file.

        Raises:
            UserError: the file is missing or contains something else.
        """
        if not Path(file).is_file():
            raise UserError(f"detector.weights={file}: no such file; give torchvision's squeezenet1_0 weights (.pth)")
        wanted = {f"features.{key}": value for key, value in self.features.state_dict().items()}
        weights = read_weights(file, wanted, "torchvision's squeezenet1_0")
        self.features.load_state_dict({key.removeprefix("features."): value for key, value in weights.items()})

    def forward(self, image: Tensor) -> Tensor:
        image = F.interpolate(image.float(), size=self.side, mode="bilinear", antialias=True)
        colour = image.expand(-1, 3, -1, -1)
        h: Tensor = self.features(self.normalised((colour + 1) / 2))
        return h.mean((2, 3))


class Projection(nn.Module):
    """Whitening: x [B, D] -> coordinates on the principal axes, [B, components]; x itself if `components` is 0.

    Axes beyond those that explain 95 % of the variance are 0, and so are the coordinates on them.

    Args:
        num_features: D.
        components: maximum number of axes; 0 for no projection.

    Examples:
        >>> projection = Projection(num_features=2, components=2)
        >>> projection.learn(torch.tensor([[-3.0, 1.0], [3.0, 1.0]]))  # varies along the first feature only
        >>> projection.dimensions
        1
        >>> [round(abs(x), 3) for x in projection(torch.tensor([[3.0, 1.0]]))[0].tolist()]  # 3 / √18
        [0.707, 0.0]
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, num_features: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("axes", torch.zeros(components, num_features))

    @property
    def dimensions(self) -> int:
        """Number of coordinates that vary."""
        return int(self.axes.any(1).sum()) if len(self.axes) else len(self.mean)

    def learn(self, x: Tensor) -> None:
        """Fit the principal axes to rows x [n, D]; each axis is divided by the standard deviation along it."""
        if not len(self.axes):
            return
        pca = PCA(min(len(self.axes), *x.shape), random_state=0).fit(x.cpu().double().numpy())
        explained = torch.from_numpy(pca.explained_variance_ratio_).cumsum(0)
        kept = min(int((explained < EXPLAINED_VARIANCE).sum()) + 1, len(explained))
        deviation = torch.from_numpy(pca.explained_variance_[:kept]).sqrt()
        self.mean.copy_(torch.from_numpy(pca.mean_))
        self.axes.zero_()
        self.axes[:kept] = (torch.from_numpy(pca.components_[:kept]) / deviation[:, None].clamp_min(1e-6)).to(self.axes)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.axes.T if len(self.axes) else x
