"""What the site lists and nobody keeps by hand: methods by their pages, data sets by their experiments."""

import re
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parent.parent
METHODS = ROOT / "docs" / "methods"
DATASETS = ROOT / "experiments" / "datasets"


class Method(NamedTuple):
    """A page of docs/methods; its front matter has what its text does not.

    Attributes:
        name: of the page and of the detector's module.
        title: of the method and its variants.
        group: section of the navigation.
        learns: what its networks learn.
        score: what the score is.
        map: whether it has an anomaly map of its own.
        generates: whether it can draw images.
        families: classes that the detector derives from.
        phases: names of the phases of its training.
    """

    name: str
    title: str
    group: str
    learns: str
    score: str
    map: bool
    generates: bool
    families: list[str]
    phases: list[str]


def methods() -> list[Method]:
    """Read every page, in the order of the titles.

    Raises:
        ValueError: a page has no front matter, or it lacks something.
    """
    pages = (path for path in METHODS.glob("*.md") if path.stem != "index")
    return sorted(map(_method, pages), key=lambda method: method.title.lower())


def _method(path: Path) -> Method:
    _, front, text = [*path.read_text(encoding="utf-8").split("---\n", 2), "", ""][:3]
    stated = yaml.safe_load(front)
    wanted = ("title", "group", "learns", "score", "map", "generates")
    if not isinstance(stated, dict) or set(wanted) - stated.keys():
        raise ValueError(f"{path} begins with lines between two ---: {', '.join(f'{key}: …' for key in wanted)}")
    kinds = re.search(r"^Class .*?(?:family|families|directly a)([^;.]*)", text, re.MULTILINE)
    training = text.partition("\n## Training\n")[2].partition("\n## ")[0]
    phases = re.findall(r"^\| `(\w+)` \|", training, re.MULTILINE)
    families = re.findall(r"`(\w+)`", kinds[1]) if kinds else []
    return Method(path.stem, *(stated[key] for key in wanted), families=families, phases=phases)


def methods_table() -> str:
    """All methods as a Markdown table, for docs/methods/index.md."""
    lines = ["| method | family | what it learns | score | map | generates | phases |", "|---|---|---|---|---|---|---|"]
    for method in methods():
        families, phases = (", ".join(f"`{name}`" for name in names) for names in (method.families, method.phases))
        flags = ["yes" if flag else "no" for flag in (method.map, method.generates)]
        cells = (f"[{method.title}]({method.name}.md)", families, method.learns, method.score, *flags, phases)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def datasets_table() -> str:
    """All data sets as a Markdown table: the first comment of each experiment, as `make list` shows it."""
    lines = ["| data set | what |", "|---|---|"]
    for path in sorted(DATASETS.glob("*.yaml")):
        about = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"| `{path.stem}` | {about} |")
    return "\n".join(lines)


def navigation() -> list[object]:
    """The pages of methods, group by group, as an entry of MkDocs' navigation."""
    groups: dict[str, list[object]] = {}
    for method in methods():
        groups.setdefault(method.group, []).append({method.title: f"methods/{method.name}.md"})
    return ["methods/index.md", *({group: groups[group]} for group in sorted(groups))]


TABLES = {"methods": methods_table, "data sets": datasets_table}
MARKER = re.compile(rf"^<!-- table: ({'|'.join(TABLES)}) -->.*$", re.MULTILINE)


def filled(markdown: str) -> str:
    """Put the tables in the place of their markers; the rest of such a line is for who reads the file itself."""
    return MARKER.sub(lambda marker: TABLES[marker[1]](), markdown)
