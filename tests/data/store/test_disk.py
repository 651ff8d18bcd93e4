import errno

import pytest

from anomaly_lab.data.store.disk import disk_errors, fresh_folder
from anomaly_lab.types import UserError


def test_folder_appears_complete(tmp_path):
    with fresh_folder(tmp_path / "new") as work:
        (work / "file").write_text("x")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new" / "file").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def _fail_inside(folder):
    with fresh_folder(folder) as work:
        (work / "half").write_text("x")
        raise ValueError("stop")


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="stop"):
        _fail_inside(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_remains_of_a_killed_process_are_swept(tmp_path):
    (tmp_path / ".new.tmp").mkdir()
    (tmp_path / ".new.tmp" / "old").write_text("x")
    with fresh_folder(tmp_path / "new"):
        pass
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "disk full"), (errno.EROFS, "cannot be written")])
def test_disk_trouble_is_one_line(tmp_path, number, message):
    with pytest.raises(UserError, match=message), disk_errors(tmp_path):
        raise OSError(number, "as the system says")
