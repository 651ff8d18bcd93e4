"""Original and counterpart stand side by side, each its own pixels, and the slider blends just these two."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pages import own, scripts_of
from PIL import Image

from anomaly_lab.reports import html, prediction_page
from anomaly_lab.reports.counterpart import LARGEST, Pair, shown
from anomaly_lab.reports.gallery import FIXED_CASES
from anomaly_lab.reports.images import ABOVE, BELOW, shades
from anomaly_lab.reports.prediction_page import CASES_WITH_COUNTERPARTS, Exhibit, Exhibits, Finding, Scoring, views
from anomaly_lab.reports.run_report import write_report

from .conftest import HOSTILE


class Cards(HTMLParser):
    """What a page holds of counterparts: of each card the pictures by the class of their figure, and its sliders.

    Attributes:
        cards: pictures, data URI by class.
        sliders: of each card, the attributes of what it has of inputs.
        hidden: of each card, whether its label waits for the script.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cards: list[dict[str, str]] = []
        self.sliders: list[list[dict[str, str | None]]] = []
        self.hidden: list[bool] = []
        self._figure = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("class") == "counterpart":
            self.cards.append({})
            self.sliders.append([])
        elif tag == "figure":
            self._figure = found.get("class") or ""
        elif tag == "img" and self._figure in ("image", "reconstruction", "difference", "overlay"):
            assert found["alt"]
            self.cards[-1][self._figure] = found["src"] or ""
        elif found.get("class") == "blend":
            self.hidden.append("hidden" in found)
        elif tag == "input" and self.cards:
            self.sliders[-1].append(found)

    def handle_endtag(self, tag: str) -> None:
        self._figure = "" if tag == "figure" else self._figure


def pixels(uri: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))) as picture:
        return np.asarray(picture)


def as_shown(image: NDArray[Any]) -> NDArray[np.uint8]:
    return (shades(image) * 255).round().astype(np.uint8)


def keep(run: Path, ids: list[str], side: int = 12, **without: None) -> dict[str, NDArray[Any]]:
    """Give a run pictures of these cases, no two alike."""
    rng = np.random.default_rng(0)
    image, reconstruction = (rng.uniform(-1, 1, (len(ids), 1, side, side)).astype(np.float32) for _ in range(2))
    maps, mask = np.abs(image - reconstruction), np.zeros(image.shape, bool)
    mask[:, :, 2:4, 2:4] = True
    arrays = {"image": image, "reconstruction": reconstruction, "anomaly_map": maps, "mask": mask}
    arrays = {name: values for name, values in arrays.items() if name not in without}
    np.savez(run / "samples" / "gallery.npz", id=np.array(ids), kind=np.array(["fixed"] * len(ids)), **arrays)
    return arrays


NORMAL, ANOMALOUS = ([f"test-{label}-{i:03d}" for i in range(7)] for label in (0, 1))
ANOMALOUS[0] = HOSTILE


def section(page: str) -> str:
    return page.split('<section id="counterpart">')[1].split("</section>")[0]


def names(page: str) -> list[str]:
    return re.findall(r'<h3 class="kind">(.*?) <small>', section(page))


def test_the_sliders_two_pictures_are_the_original_and_its_reconstruction(fake_run: Path) -> None:
    ids = [*reversed(ANOMALOUS), *reversed(NORMAL)]
    stored = keep(fake_run, ids)
    page = write_report(fake_run).read_text()
    found = Cards(page)
    expected = [ids.index(case) for case in NORMAL[:FIXED_CASES] + ANOMALOUS[:FIXED_CASES]]
    assert len(found.cards) == len(found.sliders) == len(found.hidden) == 2 * FIXED_CASES
    for card, sliders, is_hidden, i in zip(found.cards, found.sliders, found.hidden, expected, strict=True):
        assert list(card) == ["image", "reconstruction", "difference", "overlay"]
        assert (pixels(card["image"]) == as_shown(stored["image"][i])).all()
        assert (pixels(card["reconstruction"]) == as_shown(stored["reconstruction"][i])).all()
        (slider,) = sliders
        assert slider["type"] == "range"
        assert ids[i] in str(slider["aria-label"])
        assert is_hidden  # shown by the script, without which it could do nothing
    assert names(page) == [name.replace("<", "&lt;").replace(">", "&gt;") for name in (ids[i] for i in expected)]


@pytest.mark.parametrize("without", ["reconstruction", "samples"])
def test_a_run_without_reconstructions_has_neither_section_nor_slider(fake_run: Path, without: str) -> None:
    keep(fake_run, NORMAL, reconstruction=None)
    if without == "samples":
        (fake_run / "samples" / "gallery.npz").unlink()
    page = write_report(fake_run).read_text()
    found = Cards(page)
    assert "counterpart" not in re.sub(r"<(style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert (found.cards, found.sliders) == ([], [])


def test_an_older_run_shows_what_it_has_kept_of_them(fake_run: Path) -> None:
    keep(fake_run, [NORMAL[1], "test-0-020", ANOMALOUS[2]], anomaly_map=None, mask=None)
    page = write_report(fake_run).read_text()
    assert names(page) == [NORMAL[1], ANOMALOUS[2]]
    assert "as far as the run has them" in page
    assert list(Cards(page).cards[0]) == ["image", "reconstruction", "difference"]


def test_differences_have_a_sign_and_one_scale_for_all() -> None:
    grey = np.zeros((1, 2, 2))
    brighter, darker = grey + np.array([[0.0, 0.0], [0.0, 0.8]]), grey - 0.4
    found = shown([Pair({}, brighter, grey), Pair({}, darker, grey)], brightest=1.0)
    assert found is not None
    assert found.largest == pytest.approx(0.4, abs=0.01)
    first, second = (pixels(case["difference"]) for case in found.cases)
    assert first[0, 0].tolist() == [0, 0, 0]
    assert np.allclose(first[1, 1], ABOVE * 255, atol=1)
    assert np.allclose(second[0, 0], BELOW * 255 * 0.2 / found.largest, atol=1)


def test_what_is_no_number_is_a_colour_all_the_same() -> None:
    broken = np.full((3, 4, 4), np.nan)
    found = shown([Pair({}, np.zeros((3, 4, 4)), broken)], brightest=1.0)
    assert found is not None
    assert found.largest == 0


@pytest.mark.parametrize(("side", "expected"), [(300, 300), (LARGEST + 200, LARGEST)])
def test_pictures_keep_their_pixels_and_the_room_for_them_up_to_a_size(side: int, expected: int) -> None:
    image = np.zeros((1, side, side))
    found = shown([Pair({}, image, image)], brightest=1.0)
    assert found is not None
    for part in ("image", "reconstruction", "difference"):
        assert pixels(found.cases[0][part]).shape == (expected, expected, 3)
    parts = html.environment().get_template("parts.html.j2")
    assert f'style="--tile: {expected}px"' in parts.module.counterpart(found.cases[0], "a")


# --- the page on new files -------------------------------------------------------------------------------------------


def test_new_files_stand_beside_their_counterparts_the_highest_scores_first(tmp_path: Path) -> None:
    rng, exhibits = np.random.default_rng(0), Exhibits(tmp_path)
    images = rng.uniform(-1, 1, (CASES_WITH_COUNTERPARTS + 3, 2, 1, 8, 8)).astype(np.float32)
    findings = [Finding(f"case {i:03d}", float(i)) for i in range(len(images))]
    for i, (image, redrawn) in enumerate(images):
        drawn = None if i == len(images) - 2 else redrawn  # one has no counterpart
        exhibits.add(i, float(i), Exhibit(views(image, np.eye(8, dtype=np.float32), None, 0, drawn)))
    page = prediction_page.render(Scoring("a run", {}, {}, 0), findings, list(exhibits))
    shown_ones = [i for i in reversed(range(len(images))) if i != len(images) - 2][:CASES_WITH_COUNTERPARTS]
    assert names(page) == [f"case {i:03d}" for i in shown_ones]
    for card, i in zip(Cards(page).cards, shown_ones, strict=True):
        assert (pixels(card["image"]) == as_shown(images[i, 0])).all()
        assert (pixels(card["reconstruction"]) == as_shown(images[i, 1])).all()
    assert f"{CASES_WITH_COUNTERPARTS} of {len(images) - 1} are shown" in section(page)
    assert scripts_of(page) == own()


def test_a_volume_is_shown_by_its_most_conspicuous_slice(tmp_path: Path) -> None:
    anomaly_map = np.zeros((4, 40, 4), np.float32)
    anomaly_map[0, 10, 0], anomaly_map[0, 30, 0] = 3, 5
    image = np.broadcast_to(np.arange(40)[None, None, :, None] / 20 - 1, (1, 4, 40, 4))
    exhibits = Exhibits(tmp_path)
    exhibits.add(0, 1.0, Exhibit(views(image, anomaly_map, None, 1, -image)))
    page = prediction_page.render(Scoring("a run", {}, {}, 0), [Finding("a", 1.0)], list(exhibits))
    (card,) = Cards(page).cards
    assert "slice 31 of 40, " in section(page)
    assert np.allclose(pixels(card["image"]), 255 * 30 / 40, atol=1)
    assert np.allclose(pixels(card["reconstruction"]), 255 * 10 / 40, atol=1)
