"""The files of a folder, as somebody who looks at it sees them: through links, without what systems leave there."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from anomaly_lab.types import UserError

_LEFT_BY_SYSTEMS = {  # besides hidden names: thumbnails, rubbish bins and the like of Macs, Windows and NAS boxes
    "__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir", "#recycle",
    "@recycle", "@recently-snapshot", "lost+found",
}  # fmt: skip
_RESULTS = ({"config.yaml", "provenance.json"}, {"prediction.json", "scores.csv"})  # there before any picture is


def files_below(root: Path, results: list[Path] | None = None) -> Iterator[Path]:
    """Yield the files below a folder, folder by folder, sorted by name; a file yields itself.

    Linked folders are entered, unless the link leads to a folder above it. Hidden files and folders are not looked at,
    nor what operating systems and NAS boxes leave, such as `._a.png`, `Thumbs.db`, `@eaDir`. Pipes, links
    to nothing and the like are among the files: whoever reads them reports them. Folders of runs and predictions are
    not entered, finished or not: what they hold was drawn by a detector. `root` itself may lie in one, or be one.

    Args:
        root: the folder, or a file.
        results: takes the folders of runs and predictions that were left out, as they are met.

    Raises:
        UserError: a folder cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.png", "._b.png", "Thumbs.db", "a.PNG"):
        ...         (Path(folder) / name).touch()
        ...     [path.name for path in files_below(Path(folder))]
        ['a.PNG', 'b.png']
    """
    if not root.is_dir():
        yield from [root] if root.exists() else []
        return
    for folder, inner, names in os.walk(root, onerror=_unreadable, followlinks=True):
        if Path(folder) != root and any(marks <= set(names) for marks in _RESULTS):
            inner.clear()
            if results is not None:
                results.append(Path(folder))
            continue
        inner[:] = sorted(name for name in inner if is_seen(name) and not _leads_up(folder, name))
        for name in sorted(filter(is_seen, names)):
            yield Path(folder, name)


def as_spelt(root: Path, name: str) -> Path:
    """Return the file or folder of a name in small letters as it is spelt below `root`: `masks`, or else `Masks`.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "Masks").mkdir()
        ...     as_spelt(Path(folder), "masks").name, as_spelt(Path(folder), "labels.csv").name
        ('Masks', 'labels.csv')
    """
    names: list[str] = []
    with contextlib.suppress(OSError):  # it is not there, or may be entered but not listed
        names = [path.name for path in root.iterdir() if path.name.casefold() == name]
    return root / max(names, default=name)  # small letters come last: `masks` itself, if it is there


def told(results: Collection[Path]) -> Counter[str]:
    """Return how many folders of results were left out, under a name for people; empty for none.

    Examples:
        >>> told([Path("runs/a")])
        Counter({'folder of a run or prediction': 1})
    """
    name = "folder of a run or prediction" if len(results) == 1 else "folders of runs and predictions"
    return Counter({name: len(results)} if results else ())


def name_of(path: Path | str) -> str:
    r"""Return a path as it can be written in one line anywhere; bytes that are not UTF-8 and line breaks are escaped.

    Examples:
        >>> name_of(Path(os.fsdecode(b"caf\xe9.png")))
        'caf\\xe9.png'
    """
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(ascii(sign)[1:-1] if sign.splitlines() == [""] else sign for sign in name)


def has_plain_name(path: Path) -> bool:
    """Return whether a path is UTF-8 and has no line breaks, so that tables and reports can name it."""
    return name_of(path) == str(path)


def is_seen(name: str) -> bool:
    """Return whether a file or folder of this name is one that a person put there.

    Examples:
        >>> is_seen("a.png"), is_seen("._a.png"), is_seen("@eaDir")
        (True, False, False)
    """
    return not name.startswith(".") and name.casefold() not in _LEFT_BY_SYSTEMS


def _leads_up(folder: str, name: str) -> bool:
    """Return whether a folder is a link to itself or to one that contains it."""
    path = Path(folder, name)
    return path.is_symlink() and Path(folder).resolve().is_relative_to(path.resolve())


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: the folder cannot be read ({error.strerror}); put that right") from error
