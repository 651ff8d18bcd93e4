"""Features of an image classifier, in which generated images are compared with real ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.networks.backbones import ARCHITECTURES, FrozenStages, load
from anomaly_lab.networks.pretrained import Normalised
from anomaly_lab.types import UserError

SIDE = 224  # pixels to which images are resized: that of ImageNet's classifiers, so that small images keep places


class ClassifierFeatures(nn.Module):
    """Classifier without its head, never trained: image [B, C, H, W] in [-1, 1] -> the output of each stage.

    Args:
        name: a key of `backbones.ARCHITECTURES`.
        weights: file of a state dict of the classifier; `package` for the installed package's, or `random` for fixed
            random ones.

    Attributes:
        side: pixels to which images are resized.
        digest: the first 16 hex digits of the file's SHA-256; None for random weights.

    Raises:
        UserError: the file or the package is missing or contains something else.

    Examples:
        >>> features = ClassifierFeatures("squeezenet1_0", "random")
        >>> taps = features(torch.zeros(2, 1, 32, 32))
        >>> [tuple(tap.shape) for tap in taps], features.pooled(taps).shape
        ([(2, 256, 54, 54), (2, 512, 27, 27), (2, 512, 13, 13)], torch.Size([2, 512]))
    """

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stages = FrozenStages(name, len(ARCHITECTURES[name].ends))
        self.side = SIDE
        self.normalised = Normalised(ARCHITECTURES[name].normalisation)
        self.digest = None if weights == "random" else self._load(weights)

    def _load(self, weights: str) -> str:
        try:
            return load([self.stages], weights)
        except UserError as error:  # whose words are those of a detector's settings
            said = str(error).replace("detector.weights", "weights").replace("detector.backbone", "features")
            raise UserError(said) from error

    def forward(self, image: Tensor) -> list[Tensor]:
        image = F.interpolate(image.float(), size=(self.side, self.side), mode="bilinear", antialias=True)
        taps: list[Tensor] = self.stages(self.normalised((image.expand(-1, 3, -1, -1) + 1) / 2))
        return taps

    @staticmethod
    def pooled(taps: list[Tensor]) -> Tensor:
        """Return the means of the last map, [B, F]."""
        return taps[-1].mean((2, 3))
