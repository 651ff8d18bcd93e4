"""The page: whole, escaped, without a request to anywhere; honest about what it is made of."""

import re
from dataclasses import replace

import pytest
from browser import Opener, everywhere, overflows
from pages import own, scripts_of
from study_runs import judged, keep_pictures, write_run

from anomaly_lab.studies.findings import read_findings
from anomaly_lab.studies.page import page
from anomaly_lab.studies.plan import DataSet, Key, Row, Study

ROWS = {
    "a": Row("A <b>", "x", x=0, paper={"set": 0.9}, notes=["n"]),
    "b": Row("B", "x", x=1, paper={"set": 0.8}),
    "c": Row("C", "x", x=2),
}
STUDY = Study(
    name="s",
    title="Many & few",
    datasets={"set": DataSet("Set"), "none": DataSet("None yet")},
    rows=ROWS,
    curve="weight",
    footnotes={"n": "We <chose>."},
)


@pytest.fixture
def findings(tmp_path):
    runs = {
        Key(row, "set", seed): write_run(tmp_path / f"{row}{seed}", shift, seed)
        for row, shift in (("a", 2.0), ("b", 1.0), ("c", 0.5))
        for seed in range(5)
    }
    return read_findings(STUDY, runs, {Key("a", "none", 0): "no <files>"})


def test_the_page_needs_nothing_else(findings, tmp_path):
    text = page.write(findings, tmp_path / "out").read_text()
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert scripts_of(text) == own("studies.page")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "index.html",
        "runs.csv",
        "table.csv",
        "table.md",
    ]


def test_a_row_tells_what_it_is_held_against_where_that_is_not_the_reference(findings):
    assert ">against " not in page.render(findings)
    rows = findings.study.rows | {"c": replace(findings.study.rows["c"], against="b")}
    text = page.render(replace(findings, study=replace(findings.study, rows=rows)))
    assert text.count(">against B") == 2  # among the differences and among the tests


def test_strangers_words_are_escaped(findings):
    text = page.render(findings)
    for raw, escaped in (
        ("A <b>", "A &lt;b&gt;"),
        ("We <chose>", "We &lt;chose&gt;"),
        ("no <files>", "no &lt;files&gt;"),
    ):
        assert raw not in text
        assert escaped in text


def test_every_section_has_its_figures(findings):
    text = page.render(findings)
    for anchor in re.findall(r'href="#(\w+)"', text):
        assert f'id="{anchor}"' in text
    assert text.count('<svg role="img"') == 2 + 1 + 3 * 2  # boxes of both sets, the curve, ROC and scores of each row
    assert text.count('class="band') == 1 + 3


def test_what_no_run_has_recorded_has_no_section(findings):
    text = page.render(findings)
    for anchor in ("decisions", "health", "pictures"):
        assert f'id="{anchor}"' not in text
    unpublished = replace(STUDY, rows={name: replace(row, paper={}) for name, row in ROWS.items()})
    assert 'id="order"' not in page.render(replace(findings, study=unpublished))


def test_decisions_gains_health_and_pictures_stand_on_the_page(tmp_path):
    runs = {}
    for i, row in enumerate(("a", "b", "c")):
        for seed in range(2):
            health = {"fid": 10.0 * i + seed, "features": "a <network>"}
            run = write_run(tmp_path / f"{row}{seed}", 2.0 - i / 2, seed, source="real", health=health)
            keep_pictures(judged(run))
            runs[Key(row, "set", seed)] = run
    text = page.render(read_findings(STUDY, runs, {}))
    for anchor in re.findall(r'href="#(\w+)"', text):
        assert f'id="{anchor}"' in text
    assert {"decisions", "gains", "health", "pictures"} <= set(re.findall(r'section id="(\w+)"', text))
    assert text.count('class="spark"') == 4 * 3 + 4  # B, C and the floor against A, and an axis each
    assert text.count("data:image/") == 3 + 2 + 2 * 3 * 2  # samples, inputs, two parts of two cases for three rows
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert "a <network>" not in text


def test_a_study_stopped_half_way_is_a_page(tmp_path):
    runs = {
        Key("b", "set", 0): judged(write_run(tmp_path / "b", 1.0)),
        Key("c", "none", 0): write_run(tmp_path / "c", 1),
    }
    text = page.render(read_findings(STUDY, runs, {Key("a", "set", 0): "not trained yet"}))
    assert 'id="decisions"' in text
    assert 'id="gains"' not in text  # the reference is missing


def test_no_results_at_all_is_a_page(findings):
    empty = replace(findings, results={}, missing={Key("a", "set", 0): "it broke"})
    assert "it broke" in page.render(empty)


def test_what_a_detector_says_of_itself_stands_above_with_its_row(findings):
    key = Key("a", "set", 0)
    facts = {**findings.results[key].facts, "detector": {"caveats": ["its teacher is random"]}}
    (banner,) = [
        b
        for b in page.banners(
            replace(findings, results={**findings.results, key: replace(findings.results[key], facts=facts)})
        )
        if b.text == "its teacher is random"
    ]
    assert STUDY.rows["a"].title in banner.title


def test_banners_warn_of_twins_budgets_and_mixed_code(findings):
    assert [b.title for b in page.banners(findings)] == ["† Synthetic twin", "Reduced budget: smoke", "Incomplete"]
    key = Key("a", "set", 0)
    mixed = findings.results | {key: replace(findings.results[key], facts={"code": "other", "budget": "paper"})}
    assert "Mixed code" in [b.title for b in page.banners(replace(findings, results=mixed))]
    elsewhere = findings.results | {key._replace(dataset="none"): mixed[key]}  # another data set is other code anyway
    assert "Mixed code" not in [b.title for b in page.banners(replace(findings, results=elsewhere))]


@pytest.mark.parametrize(("value", "text"), [(0.0004, "< .001"), (0.0412, ".041"), (1.0, "1.000"), (float("nan"), "–")])
def test_p_values(value, text):
    assert page.p_value(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0412, "+.041"), (-0.2, "−.200"), (0.0, ".000"), (float("nan"), "–")])
def test_differences_have_their_sign(value, text):
    assert page.signed(value) == text


@everywhere
def test_rows_are_sorted_and_a_case_is_enlarged_with_the_pictures_of_every_method(
    open_page: Opener, tmp_path, width: int, scheme: str
):
    runs = {}
    for i, row in enumerate("abc"):
        for seed in range(2):
            run = write_run(tmp_path / f"{row}{seed}", 2.0 - i / 2, seed)
            keep_pictures(judged(run))
            runs[Key(row, "set", seed)] = run
    opened = open_page(page.write(read_findings(STUDY, runs, {}), tmp_path / "out"), width, scheme)
    names = opened.locator("#table tbody th")
    in_order = names.all_inner_texts()
    score = opened.locator("#table thead").get_by_role("button", name="Set").first
    score.click()
    figures = [float(text) for text in opened.locator("#table tbody tr").evaluate_all(
        "rows => rows.map(row => row.children[1].innerText.match(/[.\\d]+/)?.[0]).filter(Boolean)")]  # fmt: skip
    assert figures == sorted(figures, reverse=True)
    score.focus()
    opened.keyboard.press("Enter")
    opened.keyboard.press("Enter")
    assert names.all_inner_texts() == in_order
    dialog = opened.locator("dialog")
    first = opened.locator(".pictured .picture").first
    first.focus()
    opened.keyboard.press("Enter")
    layers = dialog.get_by_label("over the original")
    said = layers.locator("option").all_inner_texts()
    assert len(said) == 1 + 2 * 3  # nothing, or one of two pictures of three methods
    assert said[0] == "nothing"
    layers.select_option(said[-1])
    assert dialog.locator(".over").get_attribute("src") == opened.locator(
        f".pictured .picture[data-layer='{said[-1]}'] img").first.get_attribute("src")  # fmt: skip
    assert "C" in dialog.locator(".title").inner_text()
    opened.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert not overflows(opened)
