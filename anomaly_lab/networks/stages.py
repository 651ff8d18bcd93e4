"""Building blocks of networks with power-of-two stages: channels per stage, DCGAN's weights, a critic's output."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

BOTTOM = 4  # side of the smallest feature map


def stage_widths(patch_size: Sequence[int], width: int) -> list[int]:
    """Return the channels of the stages, from the image inward: width · min(2^i, 8).

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.

    Examples:
        >>> stage_widths((64, 64), 64)
        [64, 128, 256, 512]
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side & (side - 1):
        raise ValueError(
            f"patch_size {tuple(patch_size)}: these networks need a square whose side is a power of two >= 8"
        )
    stages = (side // BOTTOM).bit_length() - 1
    return [width * min(2**i, 8) for i in range(stages)]


def initialise(network: nn.Module) -> None:
    """Initialise the weights as DCGAN does: N(0, 0.02), batch norm N(1, 0.02); biases 0.

    Examples:
        >>> norm = nn.BatchNorm2d(1000)
        >>> initialise(norm)
        >>> 0.01 < norm.weight.std() < 0.03, bool(norm.bias.any())
        (tensor(True), False)
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def unrounded(last: nn.Linear, h: Tensor) -> Tensor:
    """Return a critic's outputs [B] for features [B, F], in float32 under autocast.

    A Wasserstein critic's outputs may lie anywhere, at 70 as well as at 0, and bfloat16 has steps of .5 there:
    distances and spreads of outputs that were rounded are coarse.

    Examples:
        >>> layer = nn.Linear(4, 1)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     layer(torch.zeros(2, 4)).dtype, unrounded(layer, torch.zeros(2, 4)).dtype
        (torch.bfloat16, torch.float32)
    """
    with torch.autocast(h.device.type, enabled=False):
        score: Tensor = last(h.to(last.weight))
    return score.squeeze(1)
