"""GANomaly's encoder, decoder and discriminators of 4×4 convolutions, for squares of a power-of-two side >= 8.

Akcay, Atapour-Abarghouei, Breckon 2018, ACCV; layers as in the authors' code. Each has n = log2(side / 4) strided
stages of width · 2^i channels, counted from the picture, and an unstrided layer between the 4×4 map and the code. At
width 64, latent_dim 100 and one channel: reconstructor 3 200 384 weights at 32×32, 10 723 712 at 64×64, 38 353 280 at
128×128; discriminator 661 248, 2 763 520 and 11 162 368. No biases: batch norm has its own.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomaly_lab.networks.stages import BOTTOM, initialise
from anomaly_lab.networks.strided import DoublingConv2d, HalvingConv2d


def stage_widths(patch_size: Sequence[int], width: int, channel_cap: int | None = None) -> list[int]:
    """Channels of the stages, from the picture inward: 64×64, width 64 -> [64, 128, 256, 512].

    Args:
        patch_size: height and width of the picture.
        width: channels of the first stage.
        channel_cap: most channels of a stage; None, as in the authors' code, doubles them all the way.

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side & (side - 1):
        raise ValueError(f"patch_size {tuple(patch_size)}: these networks need a square, a power of two >= 8")
    stages = (side // BOTTOM).bit_length() - 1
    return [min(width * 2**i, channel_cap or width * 2**i) for i in range(stages)]


class Encoder(nn.Module):
    """image [B, C, S, S] -> code [B, latent_dim], unbounded; batch norm but in the first stage."""

    def __init__(self, in_channels: int, latent_dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.Sequential(nn.Conv2d(in_channels, widths[0], 4, 2, 1, bias=False), _leaky())
        for a, b in itertools.pairwise(widths):
            self.stages.extend((HalvingConv2d(a, b), nn.BatchNorm2d(b), _leaky()))
        self.last = nn.Conv2d(widths[-1], latent_dim, BOTTOM, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        code: Tensor = self.last(self.stages(image))
        return code.flatten(1)


class Decoder(nn.Module):
    """code [B, latent_dim] -> image [B, C, S, S] in (-1, 1); batch norm."""

    def __init__(self, latent_dim: int, out_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        inner = widths[::-1]
        self.first = nn.ConvTranspose2d(latent_dim, inner[0], BOTTOM, bias=False)
        self.stages = nn.Sequential(nn.BatchNorm2d(inner[0]), nn.ReLU(inplace=True))
        for a, b in itertools.pairwise(inner):
            self.stages.extend((DoublingConv2d(a, b), nn.BatchNorm2d(b), nn.ReLU(inplace=True)))
        self.last = nn.ConvTranspose2d(inner[-1], out_channels, 4, 2, 1, bias=False)

    def forward(self, code: Tensor) -> Tensor:
        return torch.tanh(self.last(self.stages(self.first(code[:, :, None, None]))))


class EncoderDecoderEncoder(nn.Module):
    """image [B, C, S, S] -> reconstruction [B, C, S, S], its code and the image's, [B, latent_dim] each.

    The paper calls it G, a generator, though no noise goes in; its second encoder is the paper's E.
    """

    def __init__(self, channels: int, latent_dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Encoder(channels, latent_dim, widths)
        self.decoder = Decoder(latent_dim, channels, widths)
        self.second_encoder = Encoder(channels, latent_dim, widths)
        initialise(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.encoder(image)
        reconstruction = self.decoder(z)
        return reconstruction, self.second_encoder(reconstruction), z


class GANomalyDiscriminator(nn.Module):
    """image [B, C, S, S] -> logit of "real" [B] and features [B, F]: the 4×4 map before the last layer."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Encoder(in_channels, 1, widths)
        initialise(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder.stages(image)
        return self.encoder.last(features).flatten(), features.flatten(1)


class SkipGANomalyDiscriminator(nn.Module):
    """image [B, C, S, S] -> logit of "real" [B] and features [B, 100]: an encoder's code.

    Akcay, Atapour-Abarghouei, Breckon 2019, IJCNN; the layers of the authors' code. At width 64: 1 069 700 weights at
    32×32 in colour, 3 575 428 at 64×64 in grey, 12 787 332 at 128×128 in colour.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], num_features: int = 100) -> None:
        super().__init__()
        self.encoder = Encoder(in_channels, num_features, widths)
        self.last = nn.Conv2d(num_features, 1, 3, padding=1, bias=False)  # 3×3 on one pixel, as in the authors' code
        initialise(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(image)
        return self.last(features[:, :, None, None]).flatten(), features


def _leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2, inplace=True)
