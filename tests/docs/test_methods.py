"""The pages of docs/: one for each detector, true to its class; pictures as drawn; no dead link."""

import importlib
import inspect
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from toys import smooth

from anomaly_lab.detectors.families.detector import Detector
from anomaly_lab.experiment import compose

ROOT = Path(__file__).parents[2]
DOCS, PACKAGE = ROOT / "docs", ROOT / "anomaly_lab"
MODULES = sorted(path.stem for path in (PACKAGE / "detectors").glob("[!_]*.py"))
PAGES = sorted(path.stem for path in (DOCS / "methods").glob("[!_]*.md") if path.stem != "index")
DIAGRAMS = DOCS / "methods" / "diagrams"
DRAWN = sorted(path.stem for path in DIAGRAMS.glob("*.py"))
MARKDOWN = sorted(DOCS.rglob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
TINY = {"width": 8, "samples": 64, "batch_size": 8, "search_steps": 1, "teacher": "squeezenet1_0"}


@pytest.fixture(params=PAGES)
def module(request: pytest.FixtureRequest) -> str:
    return request.param


def detector_class(module: str) -> type[Detector]:
    found = importlib.import_module(f"anomaly_lab.detectors.{module}")
    classes = [kind for _, kind in inspect.getmembers(found, inspect.isclass) if issubclass(kind, Detector)]
    (defined,) = (kind for kind in classes if kind.__module__ == found.__name__)
    return defined


def build(module: str, **settings: object) -> Detector:
    """With weights that take no memory."""
    with torch.device("meta"):
        return detector_class(module)(**settings)


def page(module: str) -> str:
    return (DOCS / "methods" / f"{module}.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """Cells of the Markdown table that begins first in the text, without its head."""
    table = re.search(r"(?:^\|.*\|\n?)+", text, re.MULTILINE)
    assert table, text[:200]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table[0].splitlines()[2:]]


def number(text: str) -> int:
    return int(text.replace(" ", ""))


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_detector_has_a_page_and_every_page_a_detector():
    assert sorted({*MODULES} - {*PAGES}) == [], "each needs docs/methods/<name>.md: copy a similar method's page"
    assert sorted({*PAGES} - {*MODULES}) == [], "a page of a detector that is not there"


def test_a_page_names_its_class_and_the_years_of_its_papers(module: str):
    kind, text = detector_class(module), page(module)
    assert f"Class `{kind.__name__}` in `anomaly_lab/detectors/{module}.py`" in text
    assert f"::: anomaly_lab.detectors.{module}.{kind.__name__}" in text
    assert (f"(diagrams/{module}.svg)" in text) == (module in DRAWN), "a picture is described in diagrams/<name>.py"
    docstring = inspect.getmodule(kind).__doc__
    years = set(re.findall(r"\b(?:19|20)\d\d\b", docstring))
    assert years
    assert {year for year in years if year not in text} == set()


def test_a_page_lists_the_phases_with_lengths_and_networks(module: str):
    listed = {quoted(name)[0]: rest for name, *rest in rows(page(module).split("\n## Training\n")[1])}
    phases = build(module).phases()
    assert list(listed) == [phase.name for phase in phases]
    for phase in phases:
        iterations, moves, minibatches = listed[phase.name]
        assert (number(iterations), number(minibatches)) == (phase.iterations, phase.minibatches)
        assert set(phase.networks) - {"averages"} <= set(quoted(moves)) <= set(detector_class(module).networks)


def test_parameter_counts_are_those_of_the_class(module: str):
    tables = re.split(r"<!-- parameters: (\w+) (\{.*\}) -->\n", page(module))[1:]
    assert tables
    for kind, settings, text in zip(tables[::3], tables[1::3], tables[2::3], strict=True):
        assert kind == detector_class(module).__name__
        detector = build(module, **json.loads(settings))
        counted = {quoted(name)[0]: number(count) for name, count in rows(text)}
        assert counted == {
            name: sum(weight.numel() for weight in detector.get_submodule(name).parameters()) for name in counted
        }


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("tables")


def test_the_table_of_all_methods_is_true(module: str, tables: ModuleType):
    text = tables.filled((DOCS / "methods/index.md").read_text(encoding="utf-8"))
    found = [row for row in rows(text) if f"({module}.md)" in row[0]]
    ((_, family, _, _, has_map, generates, phases),) = found
    kind = detector_class(module)
    assert quoted(family) == [base.__name__ for base in kind.__bases__]
    assert generates == ("no" if kind.sample is Detector.sample else "yes")
    assert quoted(phases) == [phase.name for phase in build(module).phases()]
    assert has_map == ("no" if small(kind).predict(smooth(1, seed=1)).anomaly_map is None else "yes")


def test_a_page_without_front_matter_is_told_what_belongs_there(tables: ModuleType, tmp_path: Path):
    path = tmp_path / "mygan.md"
    for text in ("# MyGAN\n", "---\ntitle: MyGAN\n---\n# MyGAN\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"mygan\.md begins with lines between two ---: title: …, group: …"):
            tables._method(path)


def test_the_table_of_data_sets_has_all(tables: ModuleType):
    found = rows(tables.filled((DOCS / "data.md").read_text(encoding="utf-8")))
    assert {quoted(name)[0]: about for name, about in found} == compose.datasets()


def small(kind: type[Detector]) -> Detector:
    """A narrow, untrained one, as if at the end of its training."""
    known = inspect.signature(kind).parameters
    settings = {name: setting for name, setting in TINY.items() if name in known}
    return kind(patch_size=(32, 32), **settings).eval()


def test_commands_name_what_there_is(module: str):
    text = page(module).replace("\\\n", " ")
    commands = re.findall(r"^make train EXP=(\S+)(.*)$", text, re.MULTILINE)
    assert len(commands) > 1
    known = set(inspect.signature(detector_class(module)).parameters)
    for name, overrides in commands:
        detector = max((n for n in compose.detectors() if name.startswith(f"{n}_")), key=len)
        assert name.removeprefix(f"{detector}_") in compose.datasets()
        assert set(re.findall(r"\bdetector\.(\w+)=", overrides)) <= known


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_no_link_is_dead(path: Path):
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        linked = (path.parent / target).resolve() if target else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), f"{target}#{anchor}"


def anchors(text: str) -> set[str]:
    """Of a page's headings, as MkDocs makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title, flags=re.ASCII).strip().lower()) for title in headings
    }


def test_the_navigation_leads_to_pages_that_exist(tables: ModuleType):
    pages = re.findall(r"\b([\w/]+\.md)\b", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    later = {"ARCHITECTURE.md", "CONTRIBUTING.md"}  # left out of the navigation while they are missing
    assert {name for name in pages if not (DOCS / name).exists()} <= later
    pages += re.findall(r"methods/\w+\.md", str(tables.navigation()))
    assert {path.relative_to(DOCS).as_posix() for path in MARKDOWN} <= set(pages)


@pytest.fixture
def diagrams(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS / "methods"))
    found = importlib.import_module("diagrams")
    yield found
    for name in ("diagrams", "drawing", "panels"):
        sys.modules.pop(name, None)


def test_pictures_are_as_drawn(diagrams: ModuleType):
    drawn = diagrams.pictures()
    assert sorted(drawn) == DRAWN
    assert set(DRAWN) <= set(MODULES)
    stale = [name for name, svg in drawn.items() if (DOCS / f"methods/diagrams/{name}.svg").read_text("utf-8") != svg]
    assert not stale, "python docs/methods/diagrams.py writes them"


@pytest.mark.parametrize("module", DRAWN)
def test_a_picture_hatches_what_does_not_move(module: str, diagrams: ModuleType):
    """A panel for each phase, in which just the networks that move are plain, and one for scoring, where none is."""
    detector = build(module)
    *training, scoring = diagrams.PICTURES[module].panels()
    assert [panel.phase for panel in training] == [phase.name for phase in detector.phases()]
    for panel, phase in zip(training, detector.phases(), strict=True):
        plain = {node.module for node in panel.nodes.values() if node.kind == "network" and not node.frozen}
        assert plain == set(phase.networks) - {"averages"}
    drawn = [node for panel in (*training, scoring) for node in panel.nodes.values() if node.kind == "network"]
    assert {node.module for node in drawn} <= {name for name, _ in detector.named_children()}
    assert all(node.frozen for node in scoring.nodes.values() if node.kind == "network")
    assert not scoring.phase


def test_the_site_is_built_with_pinned_packages():
    """Of what requirements.lock pins as well, the same version."""

    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(encoding="utf-8").lower(), re.MULTILINE))

    pinned, locked = pins(DOCS / "requirements.txt"), pins(ROOT / "requirements.lock")
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {re.split(r"[\[>=<]", name)[0] for name in asked["docs"]} <= set(pinned)
    assert {name: version for name, version in pinned.items() if locked.get(name, version) != version} == {}
