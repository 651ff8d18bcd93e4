"""The pictures of docs/methods: which tensor flows through which network, in every phase and in scoring.

    python docs/methods/diagrams.py           # writes docs/methods/diagrams/<detector>.svg
    python docs/methods/diagrams.py --check   # only says which are out of date; exit status 1 if any is

Each is described in a file of its own, diagrams/<detector>.py: its docstring is the title, its function `panels`
returns a panel for each phase and one for scoring. Shapes are those of one image at the defaults of the detector's
class, batch apart. `drawing.py` has the language.
"""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from drawing import draw

FOLDER = Path(__file__).with_name("diagrams")


def _described(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"diagram_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PICTURES = {path.stem: _described(path) for path in sorted(FOLDER.glob("*.py"))}  # by module of the detector


def pictures() -> Mapping[str, str]:
    """Every picture as SVG, by the name of its detector's module."""
    return {name: draw((found.__doc__ or name).rstrip("."), found.panels()) for name, found in PICTURES.items()}


def main(check: bool) -> int:
    """Write the pictures, or only compare; the number of those that differ."""
    stale = 0
    for name, svg in pictures().items():
        path = FOLDER / f"{name}.svg"
        if not path.exists() or path.read_text(encoding="utf-8") != svg:
            stale += 1
            print(f"{'out of date' if check else 'written'}: {path}")
            if not check:
                path.write_text(svg, encoding="utf-8")
    return stale if check else 0


if __name__ == "__main__":
    sys.exit(min(1, main("--check" in sys.argv[1:])))
