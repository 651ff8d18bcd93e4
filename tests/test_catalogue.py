"""Classes are found by reading a package's modules."""

import sys
from pathlib import Path

import pytest

from anomaly_lab import catalogue


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "toy_package"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "inner" / "__init__.py").write_text("class Inner: pass")
    (folder / "one.py").write_text("from pathlib import Path\nclass One: pass\nclass _Hidden: pass\nLIMIT = 3")
    (folder / "two.py").write_text("from toy_package.one import One\nclass Two(One): pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "toy_package"
    for name in [name for name in sys.modules if name.startswith("toy_package")]:
        del sys.modules[name]


def test_it_has_the_classes_that_its_modules_define(package: str) -> None:
    assert sorted(catalogue.classes(package)) == ["One", "Two"]
    assert catalogue.find(package, "Two").__name__ == "Two"


@pytest.mark.parametrize("name", ["Path", "_Hidden", "LIMIT", "Inner", "Three"])
def test_everything_else_is_no_attribute(package: str, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        catalogue.find(package, name)
