"""Channels by stage; DCGAN's first weights are tested on its networks."""

import pytest
import torch

from anomaly_lab.networks.adgan import AdGANCritic
from anomaly_lab.networks.resnet import ResNetCritic
from anomaly_lab.networks.stages import stage_widths


def test_widths_are_capped() -> None:
    assert stage_widths((64, 64), 64) == [64, 128, 256, 512]
    assert stage_widths((256, 256), 64) == [64, 128, 256, 512, 512, 512]


@pytest.mark.parametrize("size", [(32,), (32, 64), (48, 48), (4, 4)])
def test_other_sizes_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="power of two"):
        stage_widths(size, 64)


@pytest.mark.parametrize("kind", [AdGANCritic, ResNetCritic])
def test_outputs_far_from_0_are_not_rounded(kind: type[AdGANCritic] | type[ResNetCritic]) -> None:
    """bfloat16 has steps of .5 at 100: of outputs so rounded, neither distance nor spread is left."""
    torch.manual_seed(0)
    critic = kind(in_channels=1, patch_size=(32, 32), width=4)
    torch.nn.init.constant_(critic.last.bias, 100.0)
    image = torch.rand(16, 1, 32, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, features = critic(image), critic.features(image)
    assert (outputs.dtype, features.dtype) == (torch.float32, torch.bfloat16)
    assert len(outputs.unique()) == 16
    expected = features.float() @ critic.last.weight[0] + 100
    torch.testing.assert_close(outputs, expected)
    outputs.sum().backward()
    assert image.grad is not None
