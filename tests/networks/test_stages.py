"""Channels by stage; DCGAN's first weights are tested on its networks."""

import pytest

from anomaly_lab.networks.stages import stage_widths


def test_widths_are_capped() -> None:
    assert stage_widths((64, 64), 64) == [64, 128, 256, 512]
    assert stage_widths((256, 256), 64) == [64, 128, 256, 512, 512, 512]


@pytest.mark.parametrize("size", [(32,), (32, 64), (48, 48), (4, 4)])
def test_other_sizes_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="power of two"):
        stage_widths(size, 64)
