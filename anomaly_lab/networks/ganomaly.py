"""GANomaly's encoder, decoder and discriminators of 4×4 convolutions, for squares of a power-of-two side >= 8.

Akcay, Atapour-Abarghouei, Breckon 2018, ACCV; layers as in the authors' code. Each has n = log2(side / 4) strided
stages of width · 2^i channels, counted from the image, and an unstrided layer between the 4×4 map and the code. At
width 64, latent_dim 100 and one channel the reconstructor has 3 200 384 parameters at 32×32, 10 723 712 at 64×64 and 38
353 280 at 128×128; the discriminator 661 248, 2 763 520 and 11 162 368. There are no biases, because batch norm has its
own.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anomaly_lab.networks.stages import BOTTOM, initialise
from anomaly_lab.networks.strided import DoublingConv2d, HalvingConv2d


def stage_widths(patch_size: Sequence[int], width: int, channel_cap: int | None = None) -> list[int]:
    """Return the channels of the stages, from the image inward.

    Args:
        patch_size: height and width of the image.
        width: channels of the first stage.
        channel_cap: maximum number of channels of a stage; None doubles them at every stage, as in the authors' code.

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.

    Examples:
        >>> stage_widths((64, 64), 64), stage_widths((64, 64), 64, channel_cap=256)
        ([64, 128, 256, 512], [64, 128, 256, 256])
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side & (side - 1):
        raise ValueError(
            f"patch_size {tuple(patch_size)}: these networks need a square whose side is a power of two >= 8"
        )
    stages = (side // BOTTOM).bit_length() - 1
    return [min(width * 2**i, channel_cap or width * 2**i) for i in range(stages)]


class Encoder(nn.Module):
    """Encoder: image [B, C, S, S] -> code [B, latent_dim], unbounded; batch norm in all stages but the first.

    Args:
        in_channels: 1 or 3.
        latent_dim: length of the code.
        widths: channels of the stages, from the image inward.

    Examples:
        >>> Encoder(1, latent_dim=8, widths=stage_widths((32, 32), 4))(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 8])
    """

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
    """Decoder: code [B, latent_dim] -> image [B, C, S, S] in (-1, 1); with batch norm.

    Args:
        latent_dim: length of the code.
        out_channels: 1 or 3.
        widths: channels of the stages, from the image inward.

    Examples:
        >>> Decoder(latent_dim=8, out_channels=1, widths=stage_widths((32, 32), 4))(torch.zeros(2, 8)).shape
        torch.Size([2, 1, 32, 32])
    """

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
    """GANomaly's generator: image [B, C, S, S] -> reconstruction [B, C, S, S] and two codes [B, latent_dim].

    The first code is that of the reconstruction, the second that of the image. The paper calls the autoencoder G, a
    generator although its input is an image and not noise, and the second encoder E.

    Args:
        channels: 1 or 3.
        latent_dim: length of the codes.
        widths: channels of the stages, from the image inward.

    Examples:
        >>> network = EncoderDecoderEncoder(1, latent_dim=8, widths=stage_widths((32, 32), 4))
        >>> [tuple(output.shape) for output in network(torch.zeros(2, 1, 32, 32))]
        [(2, 1, 32, 32), (2, 8), (2, 8)]
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
    """Discriminator: image [B, C, S, S] -> logit of "real" [B] and features [B, F], the 4×4 map before the last layer.

    Args:
        in_channels: 1 or 3.
        widths: channels of the stages, from the image inward.

    Examples:
        >>> logit, features = GANomalyDiscriminator(1, stage_widths((32, 32), 4))(torch.zeros(2, 1, 32, 32))
        >>> logit.shape, features.shape
        (torch.Size([2]), torch.Size([2, 256]))
    """

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Encoder(in_channels, 1, widths)
        initialise(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder.stages(image)
        return self.encoder.last(features).flatten(), features.flatten(1)


class SkipGANomalyDiscriminator(nn.Module):
    """Discriminator: image [B, C, S, S] -> logit of "real" [B] and features [B, num_features], the code of an encoder.

    Akcay, Atapour-Abarghouei, Breckon 2019, IJCNN; layers as in the authors' code. At width 64 it has 1 069 700
    parameters at 32×32 in colour, 3 575 428 at 64×64 in grey, 12 787 332 at 128×128 in colour.

    Args:
        in_channels: 1 or 3.
        widths: channels of the stages, from the image inward.
        num_features: length of the code.

    Examples:
        >>> logit, features = SkipGANomalyDiscriminator(1, stage_widths((32, 32), 4))(torch.zeros(2, 1, 32, 32))
        >>> logit.shape, features.shape
        (torch.Size([2]), torch.Size([2, 100]))
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
