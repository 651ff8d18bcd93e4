import pytest

from anomaly_lab.experiment.words import own_settings
from anomaly_lab.serving.settings import Settings
from anomaly_lab.types import UserError


def test_words_become_settings_and_the_rest_is_the_runs() -> None:
    settings, rest = own_settings(Settings, ["port=9001", "host=0.0.0.0", "data.store.scoring_batch_size=2"])
    assert (settings.port, settings.host, settings.queue) == (9001, "0.0.0.0", 2000)
    assert rest == ["data.store.scoring_batch_size=2"]


@pytest.mark.parametrize("word", ["port=0", "port=x", "queue=0", "timeout=-1", "max_mb=[1", "max_megavoxels=0"])
def test_a_value_that_cannot_be_is_one_line(word: str) -> None:
    with pytest.raises(UserError, match=word.partition("=")[0]):
        own_settings(Settings, [word])
