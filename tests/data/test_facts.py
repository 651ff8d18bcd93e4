"""What is recorded of a data set: its counts, and remarks apart from the cases that they are about."""

import numpy as np
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.folder import Folder
from anomaly_lab.data.facts import MAX_CONCERNED, MAX_LISTED


def test_facts_count_what_is_there_and_what_was_skipped(make, headct):
    (headct / "head_ct" / "head_ct" / "000.png").write_bytes(b"")
    data = make(on_bad="skip")
    data.setup()
    facts = data.facts()
    assert facts["counts"]["test"] == {"normal": 2, "anomalous": 2}
    assert facts["patients"] == {"train": 6, "val": 2, "test": 4}
    assert [entry["file"] for entry in facts["skipped"]] == ["head_ct/head_ct/000.png"]


def test_remarks_name_no_case_and_the_cases_lie_beside_them(tmp_path):
    """A remark goes to dashboards, exports and cards; files are often named after patients."""
    for folder, count in (("normal", 12), ("masks/tumour", 30), ("tumour", 30)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(i).integers(60, 256, (16, 16), np.uint8) * (folder[:5] != "masks")
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "set" / folder / f"smith{i:02}.png")
    data = Folder(**sections(root=str(tmp_path / "set"), patch_size=(16, 16), store_dir=str(tmp_path / "store")))
    data.setup()
    facts = data.facts()
    (remark,) = facts["remarks"]
    assert remark.startswith("30 anomalous scans with an empty mask: ")
    assert "smith" not in remark
    assert facts["concerned"][remark] == [f"tumour/smith{i:02}.png" for i in range(MAX_CONCERNED)]


def test_of_many_cases_in_no_split_some_are_named_and_all_counted(make):
    data = make()
    data.setup()
    data.split = {f"{i}": "" for i in range(MAX_LISTED + 9)}
    out = data.facts()["in_no_split"]
    assert (out["count"], len(out["ids"])) == (MAX_LISTED + 9, MAX_LISTED)
