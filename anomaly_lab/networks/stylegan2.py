"""StyleGAN2's generator and discriminator, for square images of any power-of-two side >= 8.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila 2020, CVPR ("StyleGAN2"), with the sizes of StyleGAN2-ADA (Karras,
Aittala, Hellsten, Laine, Lehtinen, Aila 2020, NeurIPS); the mapping and the noise are those of StyleGAN (Karras, Laine,
Aila 2019). Written from the papers' equations in plain torch, so that all of it can be differentiated twice. At width
None, 512 channels at most, latent_dim 512 and two mapping layers, generator and discriminator of a 64×64×1 image have
22 238 990 and 23 406 849 parameters.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomaly_lab.networks.stages import BOTTOM

Noise = Literal["random", "constant"] | torch.Generator  # inputs: drawn, those of the network, or drawn from this
EPSILON = 1e-8
TRUNCATION_DECAY = 0.995  # of the running mean of w


def channels_at(patch_size: Sequence[int], width: int | None = None, channel_cap: int = 512) -> dict[int, int]:
    """Return the channels at each resolution, from 4 to that of the image: doubled at each halving, up to a limit.

    Args:
        patch_size: height and width of the image.
        width: channels at full resolution; None for StyleGAN2-ADA's, 16384 / S, or 32768 / S from 512 pixels on.
        channel_cap: maximum number of channels.

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.

    Examples:
        >>> channels_at((64, 64))
        {4: 512, 8: 512, 16: 512, 32: 512, 64: 256}
        >>> channels_at((32, 32), width=4, channel_cap=16)
        {4: 16, 8: 16, 16: 8, 32: 4}
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 2 * BOTTOM or side & (side - 1):
        raise ValueError(
            f"patch_size {tuple(patch_size)}: StyleGAN2 needs a square whose side is a power of two >= {2 * BOTTOM}"
        )
    total = width * side if width else 16384 if side <= 256 else 32768
    sides = [2**i for i in range(2, side.bit_length())]
    return {each: max(1, min(total // each, channel_cap)) for each in sides}


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope .2 that keeps the variance, by a gain of √2.

    Examples:
        >>> lrelu(torch.tensor([1.0, -1.0]))
        tensor([ 1.4142, -0.2828])
    """
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


# --- resampling ------------------------------------------------------------------------------------------------------


def blurred(x: Tensor, padding: int) -> Tensor:
    """Filter maps with [1, 3, 3, 1] / 8 along both axes: [B, C, H, W] -> [B, C, H + 2 padding - 3, …].

    Examples:
        >>> one = torch.zeros(1, 1, 1, 4)
        >>> one[..., 1] = 8.0
        >>> (blurred(F.pad(one, (0, 0, 1, 2)), padding=2)[0, 0, 2] * 8 / 3).tolist()  # the middle row has 3 / 8
        [1.0, 3.0, 3.0, 1.0, 0.0]
    """
    return _filtered(x, padding, stride=1)


def halved(x: Tensor) -> Tensor:
    """Filter maps with [1, 3, 3, 1] / 8 and keep every second pixel: [B, C, 2 H, 2 W] -> [B, C, H, W].

    Examples:
        >>> halved(torch.ones(1, 1, 4, 4))[0, 0].tolist()  # the border is padded with 0
        [[0.765625, 0.765625], [0.765625, 0.765625]]
    """
    return _filtered(x, padding=1, stride=2)


def doubled(x: Tensor) -> Tensor:
    """Put a 0 after each pixel and filter with [1, 3, 3, 1] / 4: [B, C, H, W] -> [B, C, 2 H, 2 W].

    That is bilinear interpolation between pixels, if those beyond the border are 0.

    Examples:
        >>> doubled(torch.tensor([[[[4.0]]]]))[0, 0].tolist()
        [[2.25, 2.25], [2.25, 2.25]]
    """
    return F.interpolate(F.pad(x, [1] * 4), scale_factor=2.0, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]


def _filtered(x: Tensor, padding: int, stride: int) -> Tensor:
    # One kernel for each channel: on a CPU a tenth of the time of pooling, and a fifth of two filters of one axis.
    kernel = _kernel(x.device, x.dtype).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])


def _kernel(device: torch.device, dtype: torch.dtype) -> Tensor:
    taps = (2 - (torch.arange(4, device=device, dtype=dtype) - 1.5).abs()) / 4  # [1, 3, 3, 1] / 8, made on the device
    return torch.outer(taps, taps)


# --- layers with equalised learning rates ----------------------------------------------------------------------------


class EqualisedLinear(nn.Module):
    """Linear layer whose weights are N(0, 1) and are scaled when used: [*, in_features] -> [*, out_features].

    So that all weights have the same range and, with Adam, learn at the same speed (Karras et al. 2018, section 4.1).

    Args:
        in_features: length of the input.
        out_features: length of the output.
        bias: initial value of the bias.
        lr_multiplier: factor by which the layer learns more slowly; it leaves the initial layer as it is.

    Examples:
        >>> EqualisedLinear(3, 2, bias=1.0)(torch.zeros(4, 3)).tolist()[0]
        [1.0, 1.0]
    """

    def __init__(self, in_features: int, out_features: int, bias: float = 0.0, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias / lr_multiplier))
        self.gain, self.lr_multiplier = lr_multiplier / math.sqrt(in_features), lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.lr_multiplier)


class EqualisedConv2d(nn.Module):
    """Convolution with scaled N(0, 1) weights, padded with 0 to keep the size: [B, C, H, W] -> [B, out_channels, H, W].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel, odd.
        bias: whether to add a bias per channel, initially 0.
        down: filter with [1, 3, 3, 1] and halve the size.

    Examples:
        >>> EqualisedConv2d(1, 2, 3, down=True)(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 2, 4, 4])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True, down: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.gain, self.down = 1 / math.sqrt(in_channels * kernel_size**2), down

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.gain
        if not self.down:
            return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)
        if weight.shape[-1] == 1:
            return F.conv2d(halved(x), weight, self.bias)
        return F.conv2d(blurred(x, padding=2), weight, self.bias, stride=2)


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style: x [B, C, H, W], w [B, W] -> [B, out_channels, H', W'].

    StyleGAN2, eq. 1 and 3: weight_oik s_i / √(Σ_ik (weight_oik s_i)² + ε), s = A(w). Scaling the input by s and the
    output by the root is the same, and needs no weights of its own for each image.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel, odd.
        w_dim: length of w.
        up: double the size and filter with [1, 3, 3, 1].

    Attributes:
        demodulate: whether to divide by the root, so that the style does not change the variance; 1×1 convolutions,
            which make images, do not.

    Examples:
        >>> ModulatedConv2d(2, 3, 3, w_dim=4, up=True)(torch.zeros(1, 2, 8, 8), torch.zeros(1, 4)).shape
        torch.Size([1, 3, 16, 16])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        self.up, self.demodulate = up, kernel_size > 1
        self.affine = EqualisedLinear(w_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        # With demodulation, a constant factor of the weights cancels.
        self.gain = 1.0 if self.demodulate else 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w)
        h = self.convolved(x * (style * self.gain)[:, :, None, None].to(x))
        return h * self.demodulation(style)[:, :, None, None].to(h) if self.demodulate else h

    def convolved(self, x: Tensor) -> Tensor:
        """Convolve without styles."""
        if not self.up:
            return F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)
        # A transposed convolution has put the zeros between the pixels; its filter has a gain of 4 for them.
        return 4 * blurred(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), padding=1)

    def demodulation(self, style: Tensor) -> Tensor:
        """Return the factor of each output channel, [B, out_channels], for styles [B, in_channels]; in float32."""
        with torch.autocast(style.device.type, enabled=False):
            size = F.linear(style.to(self.weight).square(), self.weight.square().sum((2, 3)))
            return torch.rsqrt(size + EPSILON)


# --- generator -------------------------------------------------------------------------------------------------------


class Mapping(nn.Module):
    """Mapping network: z [B, latent_dim] -> w [B, latent_dim]; with the running mean of w.

    Args:
        latent_dim: length of z and of w.
        layers: number of layers; StyleGAN2 has 8, StyleGAN2-ADA 2 for small images.

    Examples:
        >>> Mapping(8, layers=2)(torch.ones(3, 8)).shape
        torch.Size([3, 8])
    """

    mean: Tensor

    def __init__(self, latent_dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EqualisedLinear(latent_dim, latent_dim, lr_multiplier=0.01) for _ in range(layers))
        self.register_buffer("mean", torch.zeros(latent_dim))

    def forward(self, z: Tensor) -> Tensor:
        h = z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPSILON)
        for layer in self.layers:
            h = lrelu(layer(h))
        return h.to(self.mean)

    @torch.no_grad()
    def follow(self, mean: Tensor) -> None:
        """Move the running mean towards the mean of a batch of w, [latent_dim]."""
        self.mean.lerp_(mean.to(self.mean), 1 - TRUNCATION_DECAY)


class StyledConv(nn.Module):
    """Modulated 3×3 convolution, noise per pixel, bias, leaky ReLU: x [B, C, H, W], w [B, W] -> [B, D, H', W'].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        side: height and width of the output.
        w_dim: length of w.
        up: whether the output is twice as large as the input.

    Examples:
        >>> StyledConv(2, 3, side=8, w_dim=4)(torch.zeros(1, 2, 8, 8), torch.zeros(1, 4)).shape
        torch.Size([1, 3, 8, 8])
    """

    noise: Tensor

    def __init__(self, in_channels: int, out_channels: int, side: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, w_dim, up)
        self.register_buffer("noise", torch.randn(side, side))
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor, noise: Noise = "constant") -> Tensor:
        h = self.conv(x, w)
        pixels = self.noise if noise == "constant" else self.drawn(h, noise)
        return lrelu(h + (pixels * self.strength).to(h) + self.bias[:, None, None].to(h))

    def drawn(self, h: Tensor, noise: Noise) -> Tensor:
        """Draw noise for each image of h [B, C, H, W], [B, 1, H, W]."""
        shape = (len(h), 1, *h.shape[2:])
        if isinstance(noise, torch.Generator):  # often of another device
            return torch.randn(shape, generator=noise, device=noise.device).to(h.device)
        return torch.randn(shape, device=h.device)


class ToImage(nn.Module):
    """Modulated 1×1 convolution without demodulation, and bias: features [B, C, H, W], w [B, W] -> image.

    Args:
        in_channels: channels of the features.
        out_channels: channels of the image.
        w_dim: length of w.

    Examples:
        >>> ToImage(8, 1, w_dim=4)(torch.zeros(1, 8, 4, 4), torch.zeros(1, 4)).shape
        torch.Size([1, 1, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 1, w_dim)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        h: Tensor = self.conv(x, w)
        return h.to(self.bias) + self.bias[:, None, None]  # the sum over resolutions stays in float32


class Synthesis(nn.Module):
    """Synthesis network: styles [B, styles, w_dim] -> image [B, out_channels, S, S], unbounded.

    A learned 4×4 constant is doubled block by block; the images of all resolutions are added up (StyleGAN2, fig. 7b).
    Each block takes a style for each of its convolutions and one for its image, which is also that of the next block's
    first convolution.

    Args:
        w_dim: length of a style.
        out_channels: 1 or 3.
        channels: channels at each resolution, see `channels_at`.

    Attributes:
        num_styles: 2 log2(S) - 2.

    Examples:
        >>> synthesis = Synthesis(w_dim=8, out_channels=1, channels={4: 4, 8: 4, 16: 2})
        >>> synthesis.num_styles, synthesis(torch.zeros(2, 6, 8)).shape
        (6, torch.Size([2, 1, 16, 16]))
    """

    def __init__(self, w_dim: int, out_channels: int, channels: dict[int, int]) -> None:
        super().__init__()
        self.num_styles = 2 * len(channels)
        self.constant = nn.Parameter(torch.randn(channels[BOTTOM], BOTTOM, BOTTOM))
        first = StyledConv(channels[BOTTOM], channels[BOTTOM], BOTTOM, w_dim)
        self.ups, self.convs = nn.ModuleList(), nn.ModuleList([first])
        for side, larger in itertools.pairwise(channels):
            self.ups.append(StyledConv(channels[side], channels[larger], larger, w_dim, up=True))
            self.convs.append(StyledConv(channels[larger], channels[larger], larger, w_dim))
        self.images = nn.ModuleList(ToImage(each, out_channels, w_dim) for each in channels.values())

    def forward(self, styles: Tensor, noise: Noise = "constant") -> Tensor:
        w = styles.unbind(1)
        h = self.convs[0](self.constant.expand(styles.shape[0], -1, -1, -1), w[0], noise)
        image: Tensor = self.images[0](h, w[1])
        for i, (up, conv, to_image) in enumerate(zip(self.ups, self.convs[1:], self.images[1:], strict=True)):
            h = conv(up(h, w[2 * i + 1], noise), w[2 * i + 2], noise)
            image = doubled(image) + to_image(h, w[2 * i + 3])
        return image


class StyleGenerator(nn.Module):
    """Generator: z [B, latent_dim] -> image [B, out_channels, S, S], unbounded and nearly in [-1, 1].

    Args:
        latent_dim: length of z and of a style w.
        out_channels: 1 or 3.
        channels: channels at each resolution, see `channels_at`.
        mapping_layers: layers of the mapping network.

    Attributes:
        path_length: running mean of path lengths, for the path length penalty.

    Examples:
        >>> generator = StyleGenerator(latent_dim=8, out_channels=1, channels=channels_at((32, 32), width=2))
        >>> generator(torch.zeros(2, 8)).shape, generator.num_styles
        (torch.Size([2, 1, 32, 32]), 8)
    """

    path_length: Tensor

    def __init__(self, latent_dim: int, out_channels: int, channels: dict[int, int], mapping_layers: int = 2) -> None:
        super().__init__()
        self.mapping = Mapping(latent_dim, mapping_layers)
        self.synthesis = Synthesis(latent_dim, out_channels, channels)
        self.num_styles = self.synthesis.num_styles
        self.register_buffer("path_length", torch.zeros(()))

    def styles(self, w: Tensor, truncation: float = 1.0) -> Tensor:
        """Return the same style for all layers, [B, styles, W], drawn towards the mean: w̄ + truncation (w - w̄)."""
        return torch.lerp(self.mapping.mean, w, truncation)[:, None].expand(-1, self.num_styles, -1)

    def forward(self, z: Tensor, truncation: float = 1.0, noise: Noise = "constant") -> Tensor:
        image: Tensor = self.synthesis(self.styles(self.mapping(z), truncation), noise)
        return image


def mixed(styles: Tensor, other: Tensor, probability: float) -> Tensor:
    """Style mixing: from a random layer on, styles [B, L, W] are those of `other`, for an image with `probability`.

    Karras, Laine, Aila 2019, section 3.1. The layer is drawn uniformly from 1, …, L - 1.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> mixed(torch.zeros(2, 4, 1), torch.ones(2, 4, 1), probability=1.0)[:, :, 0].tolist()
        [[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]]
    """
    n, length, _ = styles.shape
    crossover, chance = torch.rand(n, 2, device=styles.device)[:, :, None].unbind(1)
    start = 1 + (crossover * (length - 1)).floor()
    is_other = (torch.arange(length, device=styles.device) >= start) & (chance < probability)
    return torch.where(is_other[:, :, None], other, styles)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the weights of `average` towards those of a network of the same kind; buffers are copied.

    Args:
        average: its weights become decay · theirs + (1 - decay) · the network's.
        network: what is averaged.
        decay: weight of the previous average.

    Examples:
        >>> average, network = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(average.weight, 2.0), nn.init.constant_(network.weight, 4.0)
        >>> follow(average, network, decay=0.75)
        >>> average.weight.item()
        2.5
    """
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for old, new in zip(average.buffers(), network.buffers(), strict=True):
        old.copy_(new)


# --- discriminator ---------------------------------------------------------------------------------------------------


def with_deviation(x: Tensor, group: int) -> Tensor:
    """Append a channel that tells how much a group of images varies: [B, C, H, W] -> [B, C + 1, H, W].

    It is the standard deviation over the group at each value, averaged over all values (Karras et al. 2018, section 3).
    Image i belongs to the group of images i + k B / group. If B is no multiple of `group`, groups are smaller.

    Examples:
        >>> with_deviation(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), group=4).flatten(1).tolist()
        [[1.0, 1.0], [3.0, 1.0]]
    """
    n = len(x)
    size = max(each for each in range(1, min(group, n) + 1) if n % each == 0)
    members = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(size, n // size, *x.shape[1:])
    deviation = (members.var(0, correction=0) + EPSILON).sqrt().mean((1, 2, 3))
    channel = deviation.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel.to(x)], 1)


class ResidualDown(nn.Module):
    """Block of two convolutions and a skip connection: [B, C, 2 H, 2 W] -> [B, out_channels, H, W].

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.

    Examples:
        >>> ResidualDown(2, 4)(torch.zeros(1, 2, 8, 8)).shape
        torch.Size([1, 4, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualisedConv2d(in_channels, in_channels, 3)
        self.conv2 = EqualisedConv2d(in_channels, out_channels, 3, down=True)
        self.shortcut = EqualisedConv2d(in_channels, out_channels, 1, bias=False, down=True)

    def forward(self, x: Tensor) -> Tensor:
        h = lrelu(self.conv2(lrelu(self.conv1(x))))
        out: Tensor = (h + self.shortcut(x)) * math.sqrt(0.5)  # keeps the variance of a sum
        return out


class StyleDiscriminator(nn.Module):
    """Discriminator: image [B, in_channels, S, S] -> logit of real [B]; it compares the images of a batch.

    Args:
        in_channels: 1 or 3.
        channels: channels at each resolution, see `channels_at`.
        group: images whose deviation is one feature; 1 makes the logits independent.

    Examples:
        >>> discriminator = StyleDiscriminator(in_channels=1, channels=channels_at((32, 32), width=2))
        >>> image = torch.zeros(4, 1, 32, 32)
        >>> discriminator(image).shape, discriminator.features(image).shape
        (torch.Size([4]), torch.Size([4, 256]))
    """

    def __init__(self, in_channels: int, channels: dict[int, int], group: int = 4) -> None:
        super().__init__()
        inward = list(channels.values())[::-1]
        bottom = inward[-1]
        self.group = group
        self.first = EqualisedConv2d(in_channels, inward[0], 1)
        self.blocks = nn.ModuleList(ResidualDown(a, b) for a, b in itertools.pairwise(inward))
        self.conv = EqualisedConv2d(bottom + 1, bottom, 3)
        self.dense = EqualisedLinear(bottom * BOTTOM**2, bottom)
        self.last = EqualisedLinear(bottom, 1)

    def forward(self, image: Tensor) -> Tensor:
        h = with_deviation(self.taps(image)[-1], self.group)
        h = lrelu(self.dense(lrelu(self.conv(h)).flatten(1)))
        logit: Tensor = self.last(h)
        return logit.squeeze(1)

    def taps(self, image: Tensor) -> list[Tensor]:
        """Return the outputs of the blocks for images [B, C, S, S], the last [B, C', 4, 4]; each of its image alone."""
        h, taps = lrelu(self.first(image)), []
        for block in self.blocks:
            h = block(h)
            taps.append(h)
        return taps

    def features(self, image: Tensor) -> Tensor:
        """Return the last 4×4 map before the images of a batch are compared, [B, F]."""
        return self.taps(image)[-1].flatten(1)
