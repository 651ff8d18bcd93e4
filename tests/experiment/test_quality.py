"""What is read of quality.json, and what is said of a damaged one."""

import json
from pathlib import Path

import pytest

from anomaly_lab.experiment.quality import FILE, read_quality
from anomaly_lab.types import UserError

DRAWN = {"images": 40, "kid": {"value": 0.1, "error": 0.01}, "fid": 3.0, "precision": 0.5, "recall": 0.25}
CONTENT = {
    "measured": "2026-01-01",
    "checkpoint": "00000006.ckpt",
    "seed": 0,
    "features": {"network": "squeezenet1_0", "weights": "random", "sha256": None, "side": 224},
    "held_out": 40,
    "changes": None,
    "generated": DRAWN,
    "training": DRAWN,
    "reconstructed": None,
}


def test_a_whole_file_is_read_as_it_is(tmp_path: Path) -> None:
    assert read_quality(tmp_path) == {}
    (tmp_path / FILE).write_text(json.dumps(CONTENT))
    assert read_quality(tmp_path) == CONTENT


@pytest.mark.parametrize(
    "damage",
    [
        {"held_out": "many"},
        {"generated": {**DRAWN, "kid": 0.1}},
        {"generated": {**DRAWN, "fid": "<script>"}},
        {"features": None},
        {"reconstructed": [1]},
    ],
)
def test_a_damaged_file_is_one_line_with_the_way_on(tmp_path: Path, damage: dict[str, object]) -> None:
    (tmp_path / FILE).write_text(json.dumps(CONTENT | damage))
    with pytest.raises(UserError, match=r"quality\.json is damaged .* make quality RUN=") as said:
        read_quality(tmp_path)
    assert "\n" not in str(said.value)
