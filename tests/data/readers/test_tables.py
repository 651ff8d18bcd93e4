import pytest

from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.types import UserError


def test_cells_come_by_column_and_place(tmp_path):
    path = tmp_path / "Liste zwölf.csv"
    path.write_text('\ufeffid, name\n1, "Müller, A"\n\n2,\n'.replace(', "', ',"'), encoding="utf-8")
    rows = list(read_table(path, ("name",)))
    assert rows == [(f"{path}, line 2", {"id": "1", "name": "Müller, A"}), (f"{path}, line 4", {"id": "2", "name": ""})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "columns id, name are missing, it has none"),
        (b"id;label\n1;a\n", "columns name are missing, it has id, label"),
        (b"id,name\n1\n", "line 2: 1 cells under 2 columns"),
        (b"id,name\n1,a\n1,a,b\n", "line 3: 3 cells under 2 columns"),
        (b"id,name\n1,\xff\n", "cannot be read"),
        (b"id,name,id\n1,a,2\n", "columns id appear twice"),
        (b'"a\nb",c\n', "it has a b, c;"),
        (b"x" * 5000, "it has x{200};"),
        (b"id,name\n" + b"x" * 200_000, "cannot be read"),
    ],
)
def test_faults_are_named(tmp_path, content, message):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_table(path, ("id", "name")))
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_spreadsheets_write_is_read(tmp_path):
    (path := tmp_path / "list.csv").write_bytes("\ufeffid;name;\r\n1;a, b;\r\n;;\r\n2;c;\r\n;;\r\n".encode())
    assert [(place[-6:], row["id"], row["name"]) for place, row in read_table(path, ("id", "name"))] == [
        ("line 2", "1", "a, b"),
        ("line 4", "2", "c"),
    ]
    path.write_text("id,name\n1,a;b\n,\n")
    assert [row["name"] for _, row in read_table(path, ("id", "name"))] == ["a;b"]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: the table cannot be read"):
        list(read_table(tmp_path / "none.csv", ("id",)))
