import errno
import os
from pathlib import Path

import pytest

from anomaly_lab.data.readers.tree import files_below, has_plain_name, name_of
from anomaly_lab.types import UserError


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _below(root):
    return [path.relative_to(root).as_posix() for path in files_below(root)]


def test_what_systems_leave_is_not_looked_at(tmp_path):
    _touch(tmp_path, "b/x.png", "a.PNG", "b/#1.png", "b/@home.png")
    _touch(
        tmp_path, "._a.png", "b/Thumbs.db", "b/desktop.ini", ".thumbnails/a.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg"
    )
    _touch(
        tmp_path, "__MACOSX/b/._x.png", "b/.@__thumb/x.png", "#recycle/a.png", "@Recycle/a.png", "$RECYCLE.BIN/a.png"
    )
    assert _below(tmp_path) == ["a.PNG", "b/#1.png", "b/@home.png", "b/x.png"]


def test_what_runs_and_predictions_left_is_no_data(tmp_path):
    _touch(tmp_path, "normal/a.png", "mine/config.yaml", "mine/b.png", "each/prediction.json", "each/c.png")
    _touch(tmp_path, *(f"runs/x/1/{name}" for name in ("config.yaml", "provenance.json", "samples/00000010.png")))
    _touch(tmp_path, *(f"res/{name}" for name in ("prediction.json", "scores.csv", "maps/a.png.map.png")))
    results = []
    names = [path.name for path in files_below(tmp_path, results)]
    assert [name for name in names if name.endswith(".png")] == ["c.png", "b.png", "a.png"]
    assert results == [tmp_path / "res", tmp_path / "runs/x/1"]
    assert _below(tmp_path / "runs/x/1/samples") == ["00000010.png"]  # what somebody names is looked at
    assert "scores.csv" in _below(tmp_path / "res")


def test_links_are_followed_but_not_in_circles(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    _touch(elsewhere, "deep/x.png")
    _touch(root, "a/y.png")
    (root / "linked").symlink_to(elsewhere)
    (root / "file.png").symlink_to(elsewhere / "deep" / "x.png")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (elsewhere / "back").symlink_to(root / "linked")
    (root / "nothing.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(root / "pipe.png")  # whoever reads it refuses it, so that it is not missing in silence
    assert _below(root) == ["file.png", "nothing.png", "pipe.png", "a/y.png", "linked/deep/x.png"]


def test_a_closed_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refusing(folder):  # as the system refuses it to all but root
        if Path(folder).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match="closed: the folder cannot be read"):
        _below(tmp_path)


def test_names_that_cannot_be_written_are_known():
    odd = Path(os.fsdecode(b"caf\xe9.png"))
    assert name_of(odd) == r"caf\xe9.png"
    assert not has_plain_name(odd)
    assert not has_plain_name(Path("two\nlines.png"))
    assert has_plain_name(Path("Ünï çödé 写真.png"))


def test_a_file_whose_facts_are_hidden_is_seen_and_reported_by_whoever_reads_it(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    seen = Path.is_file

    def hidden(path: Path) -> bool:
        if path.suffix == ".png":
            raise PermissionError(13, "Permission denied")  # as in a folder without the right to enter
        return seen(path)

    monkeypatch.setattr(Path, "is_file", hidden)
    assert [path.name for path in files_below(tmp_path)] == ["a.png"]
