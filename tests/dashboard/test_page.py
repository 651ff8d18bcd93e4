import base64
import gzip
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import everywhere, overflows

from anomaly_lab.dashboard import page
from anomaly_lab.dashboard.index import Index
from anomaly_lab.metrics.comparison import holm


@pytest.fixture
def written(place: Path) -> Path:
    index = Index(place)
    index.update()
    return page.write(index)


def block(html: str, name: str) -> str:
    found = re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script>', html, re.DOTALL)
    assert found
    return found[1]


def unpacked(html: str, name: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(block(html, name))))


def test_the_file_holds_rows_settings_curves_tests_and_pictures(written: Path):
    html = written.read_text()
    told, kept, settings = json.loads(block(html, "data")), unpacked(html, "kept"), unpacked(html, "settings")
    paths = [row[0] for row in told["rows"]]
    assert len(paths) == 7
    assert not told["served"]
    assert settings["detector.width"][0] == ["8", "16"]
    assert settings["detector.width"][1][paths.index("vae_set/wide")] == 1
    assert {*kept["curves"]} == {*paths}
    assert len(kept["tests"]) == 6  # of the four finished runs on the twin; a fifth has judged real files
    assert [len(gallery["strips"]) for gallery in kept["galleries"]] == [4]


def test_only_the_script_of_the_package_may_run_and_nothing_is_asked_from_elsewhere(written: Path):
    html = written.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "connect-src" not in policy[1]
    assert page._sha256(html.rpartition("<script>")[2].partition("</script>")[0]) in policy[1]
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_hostile_texts_stay_texts(place: Path):
    hostile = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)>&amp;'
    facts = json.loads((place / "vae_set/0/provenance.json").read_text()) | {"experiment": hostile}
    (place / "vae_set/0/provenance.json").write_text(json.dumps(facts))
    index = Index(place)
    index.update()
    html = page.write(index).read_text()
    assert html.count("<script") == 4
    assert "<img" not in html
    assert hostile in [row[3] for row in json.loads(block(html, "data"))["rows"]]


def test_curves_that_do_not_fit_are_those_of_the_oldest_runs(place: Path, monkeypatch: pytest.MonkeyPatch):
    index = Index(place)
    index.update()
    monkeypatch.setattr(page, "CURVES", 2 * len(json.dumps(index.curves(["vae_set/0"])["vae_set/0"])))
    kept = unpacked(page.write(index).read_text(), "kept")
    newest = sorted(index.rows.values(), key=lambda row: (row.started or "", row.path), reverse=True)
    assert list(kept["curves"]) == [row.path for row in newest[: len(kept["curves"])]]
    assert 1 <= len(kept["curves"]) < 7


def test_a_place_without_runs_has_a_page(tmp_path: Path):
    index = Index(tmp_path)
    index.update()
    assert "<h1>My runs</h1>" in page.write(index).read_text()


# In the browser ------------------------------------------------------------------------------------------------------


def experiments(tab: Any) -> list[str]:
    return tab.eval_on_selector_all(
        "#body tr:not(.group) input[type=checkbox]", "boxes => boxes.map(box => box.dataset.path)"
    )


def until_shown(tab: Any, rows: int) -> None:
    """Wait for a number of rows; the page's policy refuses the browser's own waiting for an expression."""
    for _ in range(200):
        if tab.locator("#body tr").count() == rows:
            return
        tab.wait_for_timeout(20)
    raise AssertionError(f"{tab.locator('#body tr').count()} rows, not {rows}")


@everywhere
def test_sorts_by_every_column(written: Path, open_page: Callable[..., Any], width: int, scheme: str):
    tab = open_page(written, width, scheme)
    told = json.loads(block(written.read_text(), "data"))
    rows = [dict(zip(told["columns"], row, strict=True)) for row in told["rows"]]
    keys = tab.eval_on_selector_all("#head th[data-key]", "cells => cells.map(cell => cell.dataset.key)")
    assert len(keys) == 12
    for key in keys:
        for _ in range(2):
            if width > 900:
                tab.click(f"#head th[data-key={key}] button")
            else:
                tab.select_option("#sort", key)
                tab.click("#turn")
            sort = tab.get_attribute(f"#head th[data-key={key}]", "aria-sort")
            shown = [next(row for row in rows if row["path"] == path)[key] for path in experiments(tab)]
            known = [value for value in shown if value is not None]
            assert known == sorted(known, reverse=sort == "descending")
            assert shown[len(known) :] == [None] * (len(shown) - len(known))  # what is not known stands last
        others = tab.eval_on_selector_all("#head th[aria-sort]:not([aria-sort=none])", "cells => cells.length")
        assert others == 1
    assert not overflows(tab)


@everywhere
def test_filters_by_words_and_by_column(written: Path, open_page: Callable[..., Any], width: int, scheme: str):
    tab = open_page(written, width, scheme)
    tab.fill("#search", "VAE finished twin")
    until_shown(tab, 4)
    assert tab.inner_text("#count") == "4 of 7 runs"
    tab.click("details.filters summary")
    tab.fill("[data-filter=seed]", ">0")
    assert sorted(experiments(tab)) == ["vae_set/1", "vae_set/2"]
    tab.fill("[data-filter=seed]", "")
    aurocs = sorted(
        row[9] for row in json.loads(block(written.read_text(), "data"))["rows"] if row[0] in experiments(tab)
    )
    tab.fill("[data-filter=auroc]", f"{aurocs[1]} .. {aurocs[2]}".replace("0.", "."))
    assert len(experiments(tab)) == 2
    tab.fill("[data-filter=auroc]", f"{aurocs[1]}..{aurocs[3]}".replace("0.", "."))
    assert len(experiments(tab)) == 3
    tab.fill("[data-filter=auroc]", "")
    tab.fill("[data-filter=seed]", "0..1")
    assert sorted(experiments(tab)) == ["vae_set/0", "vae_set/1", "vae_set/wide"]
    tab.click("#reset")
    tab.select_option("[data-filter=state]", "unreadable")
    assert experiments(tab) == ["pca_set/damaged"]
    assert "unreadable: provenance.json cannot be read" in tab.inner_text("#body")
    assert tab.is_disabled("#body input")
    tab.select_option("[data-filter=state]", "")
    tab.fill("#search", "no such run")
    tab.wait_for_selector("text=No run is like that.")
    assert not overflows(tab)


@everywhere
def test_ticks_two_and_compares_them(written: Path, open_page: Callable[..., Any], width: int, scheme: str):
    tab = open_page(written, width, scheme)
    assert tab.is_disabled("#start")
    for path in ("vae_set/0", "vae_set/wide"):
        tab.check(f"[data-path='{path}']")
    tab.click("#start")
    tab.wait_for_selector("#result section:nth-of-type(5)")
    assert tab.inner_text(".differs tbody").split() == ["detector.width", "8", "16"]
    assert tab.locator("polyline.curve").count() == 2
    tab.select_option("#curve", "train/loss")
    tab.check("#log")
    assert "0.01429 at 70" in tab.inner_text(".legend")
    cells = tab.inner_text(".tests tbody tr").split()
    test = next(
        test for test in unpacked(written.read_text(), "kept")["tests"] if {*test[:2]} == {"vae_set/0", "vae_set/wide"}
    )
    sign = 1 if test[0] == "vae_set/0" else -1
    difference = sign * (test[3] - test[4])
    assert cells[3] == "60"
    assert f"{abs(difference):.3f}"[1:] in tab.inner_text(".tests tbody tr")
    pictures = tab.locator(".same img")
    assert pictures.count() == 2 + 2 * 2 * 2  # inputs; reconstruction and map of two runs
    assert tab.evaluate("[...document.querySelectorAll('.same img')].every(image => image.naturalWidth > 0)")
    assert not overflows(tab)
    tab.keyboard.press("Escape")
    assert tab.is_visible("#all")
    assert tab.evaluate("document.activeElement.id") == "start"


@pytest.mark.slow
def test_p_values_of_three_runs_are_corrected_as_everywhere(written: Path, open_page: Callable[..., Any]):
    tab = open_page(written)
    for path in ("vae_set/0", "vae_set/1", "vae_set/wide"):
        tab.check(f"[data-path='{path}']")
    tab.click("#start")
    tab.wait_for_selector(".tests")
    for values in ([0.01, 0.04, None, 0.03], [0.5, 0.5], [1.0, 0.001]):
        expected = holm([float("nan") if value is None else value for value in values])
        found = tab.evaluate("values => holm(values)", values)
        assert found == pytest.approx([None if value != value else value for value in expected])
    assert tab.locator(".tests tbody tr").count() == 3


@everywhere
def test_groups_repeats_with_mean_and_joint_interval(
    written: Path, open_page: Callable[..., Any], width: int, scheme: str
):
    tab = open_page(written, width, scheme)
    told = json.loads(block(written.read_text(), "data"))
    groups = [dict(zip(told["grouped"], group, strict=True)) for group in told["groups"]]
    repeats = next(group for group in groups if group["repeats"] == 3)
    tab.check("#grouped")
    row = tab.locator("tr.group", has_text="width=8")
    said = row.inner_text()
    assert "×3" in said
    assert f"{repeats['auroc']:.3f}"[1:] in said
    assert f"[{repeats['low']:.2f}, {repeats['high']:.2f}]".replace("0.", ".") in said
    row.locator("button").focus()
    tab.keyboard.press("Enter")
    assert sorted(experiments(tab)) == ["vae_set/0", "vae_set/1", "vae_set/2"]
    assert tab.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert not overflows(tab)


@pytest.mark.slow
def test_works_by_keyboard_alone(written: Path, open_page: Callable[..., Any]):
    tab = open_page(written)

    def until(selector: str, key: str = "Tab") -> None:
        for _ in range(60):
            if tab.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            tab.keyboard.press(key)
        raise AssertionError(f"{selector} cannot be reached")

    until("#search")
    tab.keyboard.type("vae_set")
    until_shown(tab, 4)
    until("#head th[data-key=auroc] button")
    tab.keyboard.press("Enter")
    assert tab.get_attribute("#head th[data-key=auroc]", "aria-sort") == "descending"
    tab.keyboard.press(" ")
    assert tab.get_attribute("#head th[data-key=auroc]", "aria-sort") == "ascending"
    until("#body input")
    tab.keyboard.press(" ")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press(" ")
    assert tab.inner_text("#count") == "4 of 4 runs, 2 ticked".replace("4 of 4", "4 of 7")
    until("#start", "Shift+Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#result section")
    assert tab.evaluate("document.activeElement.id") == "comparing"


@pytest.mark.slow
def test_pages_through_many_runs(place: Path, open_page: Callable[..., Any]):
    from anomaly_lab.bench.dashboard import generate

    generate(place.parent / "many", 130)
    index = Index(place.parent / "many")
    index.update()
    tab = open_page(page.write(index))
    assert tab.inner_text("#page") == "Page 1 of 3"
    first = experiments(tab)
    assert len(first) == 50
    tab.click("#on")
    tab.click("#on")
    assert len(experiments(tab)) == 30
    assert tab.is_disabled("#on")
    assert not {*first} & {*experiments(tab)}
    tab.click("#head th[data-key=auroc] button")
    assert tab.inner_text("#page") == "Page 1 of 3"


@pytest.mark.slow
def test_hostile_runs_do_nothing_in_the_browser(place: Path, open_page: Callable[..., Any]):
    hostile = (
        '</script><script>document.title="taken"</script><img src="http://192.0.2.1/x" onerror="document.title=1">'
    )
    for name in ("0", "wide"):
        facts = json.loads((place / f"vae_set/{name}/provenance.json").read_text())
        facts |= {"experiment": hostile, "budget": hostile, "started": hostile}
        (place / f"vae_set/{name}/provenance.json").write_text(json.dumps(facts))
        (place / f"vae_set/{name}/metrics.jsonl").write_text(json.dumps({"iteration": 1, f"a/{hostile}": 1.0}) + "\n")
    odd = place / "javascript:alert(1)"
    (place / "pca_set").rename(odd)
    index = Index(place)
    index.update()
    tab = open_page(page.write(index))
    before = tab.title()
    for path in ("vae_set/0", "vae_set/wide"):
        tab.check(f"[data-path='{path}']")
    tab.click("#start")
    tab.wait_for_selector("#result section:nth-of-type(5)")
    tab.click("#return")
    tab.check("#grouped")
    time.sleep(0.2)
    assert tab.title() == before
    links = tab.eval_on_selector_all("a", "all => all.map(link => link.href)")
    assert all(link.startswith("file:") for link in links)
