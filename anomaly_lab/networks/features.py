"""What a kernel method sees of an image: its pixels or a pretrained network's features, and principal components."""

from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn

from anomaly_lab.networks.pretrained import Normalisation, Normalised
from anomaly_lab.types import UserError

EXPLAINED = 0.95  # share of the variance that the kept principal axes explain


class Pixels(nn.Module):
    """image [B, C, *S] in [-1, 1] -> its values in [0, 1], [B, num_features]."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, image: Tensor) -> Tensor:
        return (image.float().flatten(1) + 1) / 2


class SqueezeNetFeatures(nn.Module):
    """image [B, C, H, W] in [-1, 1] -> mean over positions of SqueezeNet 1.0's last features, [B, 512].

    Iandola et al. 2016. Never trained here: `load` fills it with weights learnt on ImageNet.

    Args:
        normalisation: what the weights expect.
    """

    num_features = 512
    side = 128  # pixels the image is brought to: at 32 its last feature map would be a single one

    def __init__(self, normalisation: Normalisation = "imagenet") -> None:
        super().__init__()
        from torchvision.models import squeezenet1_0  # only who asks for it waits for torchvision

        self.features = squeezenet1_0(weights=None).features.requires_grad_(False)
        self.normalised = Normalised(normalisation)

    def load(self, file: str) -> None:
        """Take torchvision's weights from a local file.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        if not Path(file).is_file():
            raise UserError(f"detector.weights={file}: no such file; give torchvision's squeezenet1_0 weights (.pth)")
        try:
            weights = torch.load(file, map_location="cpu", weights_only=True)
            ours = {key.removeprefix("features."): w for key, w in weights.items() if key.startswith("features.")}
            self.features.load_state_dict(ours)
        except Exception as error:
            raise UserError(f"{file}: not the weights of torchvision's squeezenet1_0; give those") from error

    def forward(self, image: Tensor) -> Tensor:
        image = F.interpolate(image.float(), size=self.side, mode="bilinear", antialias=True)
        colour = image.expand(-1, 3, -1, -1)
        h: Tensor = self.features(self.normalised((colour + 1) / 2))
        return h.mean((2, 3))


class Projection(nn.Module):
    """x [B, D] -> coordinates on whitened principal axes, [B, components]; x itself without any.

    The axes that are not needed to explain 95 % of the variance are 0, and so are the coordinates on them.

    Args:
        num_features: D.
        components: most axes; 0 for none.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, num_features: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("axes", torch.zeros(components, num_features))

    @property
    def dimensions(self) -> int:
        """How many coordinates vary."""
        return int(self.axes.any(1).sum()) if len(self.axes) else len(self.mean)

    def learn(self, x: Tensor) -> None:
        """Take the principal axes of rows x [n, D], each divided by the deviation along it."""
        if not len(self.axes):
            return
        pca = PCA(min(len(self.axes), *x.shape), random_state=0).fit(x.cpu().double().numpy())
        explained = torch.from_numpy(pca.explained_variance_ratio_).cumsum(0)
        kept = min(int((explained < EXPLAINED).sum()) + 1, len(explained))
        deviation = torch.from_numpy(pca.explained_variance_[:kept]).sqrt()
        self.mean.copy_(torch.from_numpy(pca.mean_))
        self.axes.zero_()
        self.axes[:kept] = (torch.from_numpy(pca.components_[:kept]) / deviation[:, None].clamp_min(1e-6)).to(self.axes)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.axes.T if len(self.axes) else x
