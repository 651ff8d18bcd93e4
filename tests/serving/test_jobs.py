from typing import get_args

from anomaly_lab.serving.jobs import MAPS, Wanted


def test_every_format_of_a_map_has_its_file_and_media_type() -> None:
    assert {"score", *MAPS} == set(get_args(Wanted))
    assert len({name for name, _ in MAPS.values()}) == len(MAPS)
