"""What pretrained weights are shown."""

import pytest
import torch

from anomaly_lab.networks.pretrained import Normalised


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        ("unit", (0.2, 0.4, 0.6)),
        ("imagenet", ((0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.6 - 0.406) / 0.225)),
        ("caffe", (153.0 - 104, 102.0 - 117, 51.0 - 123)),  # blue, green, red
    ],
)
def test_what_the_weights_see(normalisation: str, expected: tuple[float, ...]) -> None:
    image = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    seen = Normalised(normalisation)(image)
    torch.testing.assert_close(seen[0, :, 2, 3], torch.tensor(expected))
