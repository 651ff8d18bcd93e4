"""Pictures by the hundred thousand; here a few hundred, which go the same way."""

from pathlib import Path

import pytest

from anomaly_lab.bench import many_pictures


@pytest.fixture
def bags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(many_pictures, "DISTINCT", 30)
    monkeypatch.setattr(many_pictures, "WORKERS", 0)
    monkeypatch.setattr(many_pictures, "TIMED", 1)
    monkeypatch.setattr(many_pictures, "WARM", 1)
    return many_pictures.write_pictures(tmp_path, 200)


def test_the_layouts_of_both_hold_the_same_pictures(bags: Path) -> None:
    ours = sorted(path.name for path in (bags / "JPEGImage").iterdir())
    assert ours == sorted(path.name for path in (bags / "folders").glob("*/*.jpg"))
    assert len(ours) == 200
    assert sum(name.startswith("P") for name in ours) == 20


def test_all_are_listed_loaded_scored_and_evaluated(bags: Path) -> None:
    found = many_pictures._whole(bags, 1)
    assert set(found) == {
        "list, many pictures",
        "lazy epoch",
        "lazy evaluation",
        "peak of the list, many pictures, GB",
        "peak with workers, many pictures, GB",
        "the same, shared memory counted once, GB",
    }
    assert all(len(values) == 1 for values in found.values())


def test_loading_is_timed_in_turn(bags: Path) -> None:
    times = many_pictures._batches(bags, rounds=2)
    assert {name: len(values) for name, values in times.items()} == {"lazy batch": 2, "ImageFolder batch": 2}
    assert all(value > 0 for values in times.values() for value in values)


@pytest.mark.slow
def test_it_is_measured_in_processes_of_its_own() -> None:
    found = many_pictures.many_pictures(rounds=1, count=600)
    assert 0.05 < found["the same, shared memory counted once, GB"][0] < 16
