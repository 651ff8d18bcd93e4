"""No upload outlives its answer, nor the server, however that ends."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly_lab.serving.workspace import PREFIX, Workspace

SERVER = """
import sys
from pathlib import Path
from anomaly_lab.serving.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
with workspace.upload() as folder:
    (folder / "scan").write_bytes(b"a patient's")
    print(workspace.folder, flush=True)
    sys.stdin.read()
"""


def test_only_the_user_can_look_in(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.upload() as folder:
        assert stat.S_IMODE(workspace.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_an_upload_that_fails_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(ZeroDivisionError), workspace.upload() as folder:
        (folder / "scan").write_bytes(bytes(1 // len(list(folder.iterdir()))))
    assert [path.name for path in workspace.folder.iterdir()] == ["lock"]


def test_what_a_killed_server_left_is_removed_by_the_next_and_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}of-somebody").mkdir()  # no lock in it: not ours
    words = [sys.executable, "-c", SERVER, str(tmp_path)]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    left = Path(server.stdout.readline().strip())
    alive = Workspace(tmp_path)
    assert alive.removed == 0
    assert left.exists()
    server.kill()
    server.wait()
    after = Workspace(tmp_path)
    assert after.removed == 1
    assert not left.exists()
    assert alive.folder.exists()
    assert (tmp_path / f"{PREFIX}of-somebody").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "lock").touch()
    (tmp_path / f"{PREFIX}x").symlink_to(tmp_path / "precious")
    assert Workspace(tmp_path).removed == 0
    assert (tmp_path / "precious" / "lock").exists()
