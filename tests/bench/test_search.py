"""The measured searches: their rounds, and that both ways to search find the same."""

import pytest
import torch

from anomaly_lab.bench import search

NAMES = {"search at once", "search at once bf16", "search one by one"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "QUERIES", 8)
    monkeypatch.setattr(search, "STEPS", 2)


def test_every_way_is_measured_in_every_round() -> None:
    times = search.latent_search(rounds=2)
    assert times.keys() == NAMES == {name for pair in search.PAIRS for name in pair}
    assert all(len(seconds) == 2 for seconds in times.values())


def test_together_a_query_finds_what_it_finds_alone() -> None:
    """Else their times would be of different work."""
    exact, rough = (search._detector(32, precision) for precision in ("fp32", "bf16"))
    assert (exact.settings.search_precision, rough.settings.search_precision) == ("fp32", "bf16")
    assert exact.settings.search_steps == 2
    assert all(torch.equal(a, b) for a, b in zip(exact.parameters(), rough.parameters(), strict=True))
    image = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    start = exact.starts(image)[0]
    together = exact.search(image, start)
    alone = [exact.descend_together(image[i : i + 1], start[i : i + 1]).loss for i in range(8)]
    torch.testing.assert_close(torch.cat(alone), together.loss, rtol=1e-4, atol=1e-3)
