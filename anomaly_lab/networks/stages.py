"""What networks of power-of-two stages share: channels by stage, and DCGAN's first weights."""

from collections.abc import Sequence

from torch import nn

BOTTOM = 4  # side of the smallest feature map


def stage_widths(patch_size: Sequence[int], width: int) -> list[int]:
    """Channels of the stages, from the picture inward: 64×64, width 64 -> [64, 128, 256, 512].

    Raises:
        ValueError: `patch_size` is not a square of a power of two >= 8.
    """
    side = patch_size[0]
    if len(patch_size) != 2 or patch_size[1] != side or side < 8 or side & (side - 1):
        raise ValueError(f"patch_size {tuple(patch_size)}: these networks need a square, a power of two >= 8")
    stages = (side // BOTTOM).bit_length() - 1
    return [width * min(2**i, 8) for i in range(stages)]


def initialise(network: nn.Module) -> None:
    """DCGAN's weights: N(0, 0.02), batch norm N(1, 0.02); biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
