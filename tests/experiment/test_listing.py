"""The grid that `make list` prints: for eyes, and for a pipe."""

from pathlib import Path

import pytest

from anomaly_lab.experiment import compose
from anomaly_lab.experiment.listing import LEGEND, listing

FILES = {
    "detectors/gan": "# A GAN.",
    "detectors/kde": "# A density.",
    "datasets/ct": "# Slices.",
    "datasets/films": "# Films [bold].",
    "pairs/gan_ct": "",
    "mine": "# My own.",
}


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")
    monkeypatch.setattr(compose, "package_folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path / "pairs")


def test_a_pipe_gets_a_line_a_row_in_words():
    assert [line.split() for line in listing()] == [
        ["detector", "ct", "films", "about"], ["gan", "*", ".", "A", "GAN."], ["kde", ".", ".", "A", "density."], [],
        ["dataset", "about"], ["ct", "Slices."], ["films", "Films", "[bold]."], [],
        ["experiment", "about"], ["mine", "My", "own."],
    ]  # fmt: skip


def test_columns_stand_under_their_names():
    head, gan, *_ = listing()
    assert (gan[head.index(" ct") + 1], gan[head.index("films")], gan[head.index("about")]) == ("*", ".", "A")


def test_names_stand_upright_where_the_terminal_is_narrow_and_no_line_is_longer():
    lines = list(listing(18))
    upright = ["f", "i", "l", "c  m", "t  s"]
    assert [line.split() for line in lines[:5]] == [letters.split() for letters in upright]
    assert lines[4].index("t") == lines[5].index("*")
    assert lines[5].startswith("gan         *  .")
    assert all(len(line) <= 18 for line in lines if line != LEGEND)
    assert lines[-1] == LEGEND


def test_a_wide_terminal_has_the_names_in_a_line():
    assert next(listing(200)).split() == ["detector", "ct", "films", "about"]
