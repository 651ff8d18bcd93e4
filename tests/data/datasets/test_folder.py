import os
import unicodedata

import numpy as np
import pytest
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.folder import Folder
from anomaly_lab.types import UserError


def draw(root, *names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([number, len(name)]).integers(0, 256, (20, 18), np.uint8)
        Image.fromarray(pixels).save(path)


def write(path, *rows):
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    """Labels by sub-folder: four normal, two cracks, one dent."""
    root = tmp_path / "my pictures é"
    draw(root, "normal/a 1.png", "normal/série 2/b.jpg", "Normal/c.PNG", "normal/d.bmp")
    draw(root, "crack/x.png", "crack/deep/er/y.png", "big dent/z.tif")
    return root


@pytest.fixture
def make(root, tmp_path):
    def make(**changes):
        arguments = {"root": str(root), "patch_size": (8, 8), "batch_size": 2, "store_dir": str(tmp_path / "store")}
        return Folder(**sections(**(arguments | changes)))

    return make


def facts(cases):
    return {case.id: (case.label, case.class_name) for case in cases}


def test_sub_folders_tell_the_label_however_deep(make, root):
    data = make()
    cases = data.cases(root)
    assert facts(cases) == {
        "Normal/c.PNG": (0, ""),
        "big dent/z.tif": (1, "big dent"),
        "crack/deep/er/y.png": (1, "crack"),
        "crack/x.png": (1, "crack"),
        "normal/a 1.png": (0, ""),
        "normal/d.bmp": (0, ""),
        "normal/série 2/b.jpg": (0, ""),
    }
    assert all(case.patient == case.id and case.split is None and case.mask is None for case in cases)
    assert data.census(cases) == {"images": 7, "normal": 4, "anomalous": 3, "crack": 2, "big dent": 1}


def test_a_run_and_a_prediction_among_the_pictures_are_left_out_and_counted(make, root):
    before = make().cases(root)
    draw(root, "runs/ganomaly_folder/1/samples/00000010.png", "res/maps/a.png.map.png")
    for name in ("runs/ganomaly_folder/1/config.yaml", "runs/ganomaly_folder/1/provenance.json"):
        (root / name).touch()
    for name in ("prediction.json", "scores.csv"):
        (root / "res" / name).touch()
    data = make()
    assert data.cases(root) == before
    assert data.left_out == {"folders of runs and predictions": 2}


def test_other_names_may_mean_normal(make, root):
    cases = make(normal=("crack", "BIG DENT")).cases(root)
    assert {case.class_name for case in cases if case.label} == {"Normal", "normal"}
    with pytest.raises(UserError, match=r"no class is named fine, there are .*crack.*set data\.normal"):
        make(normal=("fine",)).cases(root)


def test_folders_named_after_the_splits_are_the_split(make, tmp_path):
    root = tmp_path / "split"
    draw(root, "train/normal/a.png", "train/normal/b.png", "test/normal/c.png", "test/hole/d.png")
    cases = make().cases(root)
    assert [(case.id, case.split, case.label, case.class_name) for case in cases] == [
        ("test/hole/d.png", "test", 1, "hole"),
        ("test/normal/c.png", "test", 0, ""),
        ("train/normal/a.png", "train", 0, ""),
        ("train/normal/b.png", "train", 0, ""),
    ]


def test_a_picture_outside_every_sub_folder_is_named(make, root):
    draw(root, "stray.png")
    with pytest.raises(UserError, match=r"stray\.png: it is not in a sub-folder"):
        make().cases(root)


def test_hidden_and_other_files_are_not_looked_at_links_are(make, root, tmp_path):
    (root / "normal" / "Thumbs.db").touch()
    draw(root, "normal/._a.png", ".cache/hole/a.png")
    draw(tmp_path / "elsewhere", "linked.png")
    (root / "hole").symlink_to(tmp_path / "elsewhere")
    cases = make().cases(root)
    assert len(cases) == 8
    assert facts(cases)["hole/linked.png"] == (1, "hole")


def test_thumbnails_are_no_class_and_other_files_are_counted(make, root):
    draw(root, "@eaDir/x.png", ".thumbnails/y.png", "normal/@eaDir/a 1.png/thumb.jpg", "__MACOSX/normal/a.png")
    for name in ("normal/a.GIF", "crack/b.gif", "crack/scan.nii.gz", "README"):
        (root / name).touch()
    data = make()
    assert len(data.cases(root)) == 7
    assert data.left_out == {".gif": 2, ".gz": 1, "README": 1}
    write(root / "labels.csv", "file,label", *ROWS)
    assert len(data.cases(root)) == 7
    assert data.left_out == {".gif": 2, ".gz": 1, "README": 1}  # the list has been read
    for path in root.rglob("*.*"):
        if path.is_file() and path.suffix.lower() != ".gif":
            path.unlink()
    with pytest.raises(UserError, match=r"no pictures .*, there are 2 \.gif, "):
        data.cases(root)


def test_webp_trains(make, root):
    draw(root, "normal/w.webp", "crack/w.WEBP")
    assert {"normal/w.webp", "crack/w.WEBP"} <= {case.id for case in make().cases(root)}


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"two\nlines.png"])
def test_a_name_that_cannot_be_written_is_refused_in_one_line(make, root, name):
    draw(root, "normal/" + os.fsdecode(name))
    with pytest.raises(UserError, match=r"(caf\\xe9|two\\nlines)\.png: its name is not UTF-8") as caught:
        make().setup()
    str(caught.value).encode()
    assert len(str(caught.value).splitlines()) == 1


def test_an_empty_mask_of_an_anomalous_picture_is_said(make, root):
    (root / "masks/crack/deep/er").mkdir(parents=True)
    Image.new("L", (18, 20)).save(root / "masks/crack/x.png")
    Image.fromarray(np.tri(20, 18, dtype=np.uint8)).save(root / "masks/crack/deep/er/y.png")
    data = make()
    data.setup()
    (remark,) = [each for each in data.facts()["remarks"] if "black on white" not in each]
    assert remark.startswith("1 anomalous scan with an empty mask: ")
    assert data.facts()["concerned"][remark] == ["crack/x.png"]


def test_the_settings_of_pictures_are_obeyed_and_known_to_the_store(make, tmp_path):
    root = tmp_path / "deep"
    for number in range(6):
        path = root / ("crack" if number == 0 else "normal") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 4096, (8, 8), np.uint16)).save(path)
    plain, scaled = make(root=str(root)), make(root=str(root), picture={"range": 4095})
    for data in (plain, scaled):
        data.setup()
    assert plain.store.folder != scaled.store.folder
    assert plain.store.images.max() < 4096 < 60000 < scaled.store.images.max()
    assert "data.picture.range=4095" in plain.facts()["remarks"][0]
    assert scaled.facts()["remarks"] == []


def test_masks_mirror_the_pictures_and_may_be_missing(make, root):
    draw(root, "masks/crack/x.bmp", "masks/crack/deep/er/y_mask.png", "masks/normal/d.png")
    masks = {case.id: case.mask for case in make().cases(root)}
    assert masks["crack/x.png"] == root / "masks/crack/x.bmp"
    assert masks["crack/deep/er/y.png"] == root / "masks/crack/deep/er/y_mask.png"
    assert masks["big dent/z.tif"] is None
    assert masks["normal/d.bmp"] is None  # a normal picture has no lesion
    assert len(masks) == 7


@pytest.mark.parametrize("folder", ["Masks", "MASKS"])
def test_the_folder_of_masks_may_have_capitals(make, root, folder):
    draw(root, f"{folder}/crack/x.png")
    data = make()
    assert {case.id: case.mask for case in data.cases(root) if case.mask} == {
        "crack/x.png": root / folder / "crack/x.png"
    }
    assert len(data.cases(root)) == 7
    assert [data.role(root / name, root) for name in ("crack/x.png", f"{folder}/crack/x.png")] == ["scan", "mask"]
    assert data.known_mask(root / "crack/x.png", root) == root / folder / "crack/x.png"


@pytest.mark.parametrize("folder", ["mask", "Ground_Truth"])
def test_a_folder_that_sounds_like_masks_is_no_class_unless_the_masks_are_named(make, root, folder):
    draw(root, f"{folder}/crack/x.png")
    with pytest.raises(UserError, match=rf"{folder}/crack/x\.png: {folder} sounds like .*data\.masks"):
        make().cases(root)
    assert [case.id for case in make(masks=folder).cases(root) if case.mask] == ["crack/x.png"]
    (root / "outlines").mkdir()
    assert folder in {case.class_name for case in make(masks="outlines").cases(root)}


def test_masks_may_lie_elsewhere(make, root, tmp_path):
    draw(tmp_path / "outlines", "crack/x.png")
    cases = make(masks=str(tmp_path / "outlines")).cases(root)
    assert [case.id for case in cases if case.mask] == ["crack/x.png"]
    with pytest.raises(UserError, match=r"nowhere: no such folder \(data\.masks"):
        make(masks="nowhere").cases(root)


def test_a_mask_of_no_picture_is_named(make, root):
    draw(root, "masks/crack/typo.png")
    with pytest.raises(UserError, match=r"masks/crack/typo\.png: no picture has the path"):
        make().cases(root)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["crack/1.png", "crack/1.jpg", "masks/crack/1.png"], r"masks/crack/1\.png: .*crack/1\.jpg or crack/1\.png; "),
        (["crack/1.png", "masks/crack/1.png", "masks/crack/1_mask.png"],
         r"1_mask\.png: crack/1\.png has another mask, \S+masks/crack/1\.png; "),
        (["crack/1.png", "masks/crack/1.png", "masks/crack/1.bmp"], r"1\.png: .*has another mask, \S+crack/1\.bmp; "),
    ],
)  # fmt: skip
def test_a_mask_has_one_picture_and_a_picture_one_mask(make, tmp_path, names, words):
    draw(tmp_path / "p", "normal/a.png", *names)
    with pytest.raises(UserError, match=words):
        make().cases(tmp_path / "p")


def test_a_picture_whose_name_ends_with_mask_has_the_mask_of_its_name(make, tmp_path):
    root = tmp_path / "p"
    draw(root, "normal/a.png", "crack/eye.png", "crack/eye_mask.png", "masks/crack/eye_mask.png")
    data = make()
    masks = {case.id: case.mask for case in data.cases(root) if case.label}
    assert masks == {"crack/eye.png": None, "crack/eye_mask.png": root / "masks/crack/eye_mask.png"}
    assert {name: data.known_mask(root / name, root) for name in masks} == masks  # so are new pictures


def test_patients_come_from_a_regular_expression_and_are_not_written_out(make, tmp_path):
    root = tmp_path / "p"
    draw(root, "normal/pat07_1.png", "normal/pat07_2.png", "normal/pat08_1.png", "hole/pat09_1.png")
    patients = [case.patient for case in make(patient=r"(pat\d+)_").cases(root)]
    assert [patients.index(patient) for patient in patients] == [0, 1, 1, 3]
    assert not any("pat0" in patient for patient in patients)
    with pytest.raises(UserError, match=r"hole/pat09_1\.png: .*finds no patient"):
        make(patient=r"pat(08)").cases(root)
    with pytest.raises(UserError, match="not a regular expression"):
        make(patient="(")


def test_of_several_groups_of_a_patient_the_one_that_is_there_counts(make, tmp_path):
    root = tmp_path / "p"
    draw(root, "normal/p7_1.png", "normal/p8_1.png", "normal/q7_1.png", "normal/q7_2.png", "hole/q9_1.png")
    patients = [case.patient for case in make(patient=r"(?:(p\d+)|(q\d+))_").cases(root)]
    assert [patients.index(patient) for patient in patients] == [0, 1, 2, 3, 3]
    with pytest.raises(UserError, match="finds no patient"):  # an empty match would make all of them one
        make(patient=r"(x?)").cases(root)


def test_without_test_cases_nothing_is_trained(make, tmp_path):
    """`train` and `val` alone, as sets for training are often given."""
    root = tmp_path / "kaggle"
    draw(root, *(f"train/normal/{i}.png" for i in range(4)), "val/normal/a.png", "val/hole/b.png")
    data = make(root=str(root))
    data.setup()
    data.check_trainable()
    with pytest.raises(UserError, match="no case is in the split test"):
        data.check_judged()


def test_a_lesion_that_has_no_pixel_left_is_said_and_counts_as_unknown(make, root):
    """Its picture is not taken for one in which every pixel is healthy."""
    (root / "masks/crack/deep/er").mkdir(parents=True)
    for name, size in (("crack/x.png", 1), ("crack/deep/er/y.png", 9)):
        mask = np.zeros((20, 18), np.uint8)
        mask[1 : 1 + size, 1 : 1 + size] = 255
        Image.fromarray(mask).save(root / "masks" / name)
    data = make()
    data.setup()
    columns = data.store.index.columns
    roles = dict(zip(columns["id"], columns["role"], strict=True))
    assert (roles["crack/x.png"], roles["crack/deep/er/y.png"]) == ("unmasked", "grid")
    (remark,) = data.facts()["remarks"]
    assert remark.startswith("1 scan whose lesion is too small for a single pixel at this size: ")
    assert data.facts()["concerned"][remark] == ["crack/x.png"]


def test_a_lesion_that_a_crop_cuts_away_is_said_and_counts_as_unknown(make, root):
    """Its mask is right, so nobody is told to correct it."""
    for folder in ("crack", "masks/crack"):
        (root / folder).mkdir(exist_ok=True, parents=True)
    picture, mask = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    picture[10:30, 10:30], mask[1:4, 1:4] = 200, 255
    Image.fromarray(picture).save(root / "crack/x.png")
    Image.fromarray(mask).save(root / "masks/crack/x.png")
    data = make(crop="head")
    data.setup()
    columns = data.store.index.columns
    assert dict(zip(columns["id"], columns["role"], strict=True))["crack/x.png"] == "unmasked"
    about = {remark: cases for remark, cases in data.facts()["concerned"].items() if "crack/x.png" in cases}
    (remark,) = about
    assert remark.startswith("1 scan whose lesion data.crop cut away: ")


@pytest.mark.parametrize("seed", range(8))
def test_limited_training_is_as_contaminated_as_it_was_drawn(make, tmp_path, seed):
    """Whole pictures are dropped before they are read: what hides among the others is not drawn once more."""
    root = tmp_path / "many"
    draw(root, *(f"normal/{i}.png" for i in range(30)), *(f"hole/{i}.png" for i in range(20)))
    data = make(root=str(root), contamination=0.45, limits={"train": 4}, seed=seed)
    data.setup()
    columns = data.store.index.columns
    stored = {case for case in columns["case"] if data.split[case] == "train"}
    assert set(np.array(columns["case"])[data.rows["train"]]) == stored
    assert len(stored) == 4


def test_a_list_tells_everything(make, root):
    draw(root, "outlines of y.png")
    write(
        root / "labels.csv",
        "\ufefffile , label, patient, mask, split",
        "normal/a 1.png, 0, Ann, , train",
        "normal/série 2/b.jpg, normal, Bob, , train",
        "Normal/c.PNG, Normal, Bob, , val",
        "./normal/d.bmp, 0, Cid, , test",
        "",
        "crack/x.png, 1, Cid, , test",
        "crack\\deep\\er\\y.png, rift, Dot, outlines of y.png, test",
        "big dent/z.tif, 1, , , test",
    )
    cases = {case.id: case for case in make().cases(root)}
    assert [case.label for case in cases.values()] == [0, 0, 0, 0, 1, 1, 1]
    assert cases["crack/deep/er/y.png"].class_name == "rift"
    assert cases["crack/deep/er/y.png"].mask == root / "outlines of y.png"
    assert [case.split for case in cases.values()] == ["train", "train", "val", "test", "test", "test", "test"]
    assert cases["normal/d.bmp"].patient == cases["crack/x.png"].patient != cases["normal/a 1.png"].patient
    assert not any(name in case.patient for name in ("Ann", "Bob", "Cid", "Dot") for case in cases.values())
    assert cases["big dent/z.tif"].patient == "big dent/z.tif"


@pytest.mark.parametrize("by", ["the list", "the folders"])
def test_a_patient_in_two_splits_of_the_users_own_is_refused_unless_asked_for(make, tmp_path, by):
    root = tmp_path / "split"
    names = ["train/normal/ann 1.png", "train/normal/bob 1.png", "train/normal/eve 1.png"]
    names += ["test/normal/cid 1.png", "test/normal/ann 2.png", "test/hole/dot 1.png"]
    draw(root, *names)
    options = {"root": str(root), "patch_size": (32, 32), "val_fraction": 0.0}
    if by == "the list":
        rows = (
            f"{name},{int('hole' in name)},{name.split('/')[-1].split()[0]},{name[:5].strip('/')}" for name in names
        )
        write(root / "labels.csv", "file,label,patient,split", *rows)
    else:
        options["patient"] = r"(\w+) \d"
    with pytest.raises(
        UserError, match=r"split: a patient is in two splits, cases test/normal/ann 2\.png, train/normal/"
    ):
        make(**options).setup()
    shown = make(**options)
    shown.setup("inspect")  # the data sheet shows them, and says why nobody can train
    assert "a patient is in two splits" in shown.unsplit
    asked = make(**options, split={"by": "image"})
    asked.setup()
    assert len(asked.facts()["audit"]["shared_patients"]) == 1
    assert asked.caveats
    (root / "labels.csv").unlink(missing_ok=True)
    make(root=str(root), val_fraction=0.0).setup()  # where nobody says who is who, each picture is a patient


def test_accents_may_be_coded_either_way(make, tmp_path):
    root = tmp_path / "nfd"
    apart = unicodedata.normalize("NFD", "é.png")
    draw(root, apart, "b.png")
    write(root / "labels.csv", "file,label", "é.png,0", "b.png,1")
    assert facts(make().cases(root)) == {"é.png": (0, ""), "b.png": (1, "")}
    draw(root, "é.png")
    with pytest.raises(UserError, match="encoding of its accents"):
        make().cases(root)


def test_digits_may_be_classes_when_one_of_them_is_normal(make, tmp_path):
    root = tmp_path / "digits"
    draw(root, "a.png", "b.png", "c.png")
    write(root / "list.csv", "file,label", "a.png,3", "b.png,0", "c.png,1")
    cases = make(labels="list.csv", normal=("3",)).cases(root)
    assert facts(cases) == {"a.png": (0, ""), "b.png": (1, "0"), "c.png": (1, "1")}


ROWS = ["normal/a 1.png,0", "normal/série 2/b.jpg,0", "Normal/c.PNG,0", "normal/d.bmp,0", "crack/x.png,1"]
ROWS += ["crack/deep/er/y.png,1", "big dent/z.tif,1"]
FAULTS = {
    r"line 9: no picture 'crack/w\.png'": ["file,label", *ROWS, "crack/w.png,1"],
    r"line 9: crack/x\.png appears twice": ["file,label", *ROWS, "crack/x.png,0"],
    "line 2: label is '2', neither": ["file,label", "normal/a 1.png,2", *ROWS[1:]],
    "line 2: label is '', neither": ["file,label", "normal/a 1.png,", *ROWS[1:]],
    "line 2: 1 cells under 2": ["file,label", "normal/a 1.png", *ROWS[1:]],
    "columns label are missing, it has file, class": ["file,class", *ROWS],
    r"1 pictures are not in the list: big dent/z\.tif; add them": ["file,label", *ROWS[:-1]],
    "line 2: split is 'training', not one of": ["file,label,split", *(f"{row},training" for row in ROWS)],
    r"line 2: no mask 'm\.png'": ["file,label,mask", *(f"{row},m.png" for row in ROWS)],
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_lists_are_named(make, root, message):
    write(root / "labels.csv", *FAULTS[message])
    with pytest.raises(UserError, match=message) as caught:
        make().cases(root)
    assert "labels.csv" in str(caught.value)


def test_a_missing_list_is_named_and_an_empty_folder_says_what_to_give(make, root, tmp_path):
    with pytest.raises(UserError, match=r"other\.csv: no such list \(data\.labels"):
        make(labels="other.csv").cases(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no pictures .*give a folder"):
        make().cases(tmp_path / "empty")


def test_pictures_that_are_not_listed_may_be_ignored(make, root):
    write(root / "labels.csv", "file,label", "normal/d.bmp,0", "crack/x.png,1")
    assert len(make(unlisted="ignore").cases(root)) == 2


def test_all_anomalous_is_fine_where_healthy_windows_train(make, root):
    draw(root, "masks/crack/x.png")
    cut = {"overlap": 0.5, "label": "mask"}
    assert len(make(normal=("none",), cut=cut).cases(root)) == 7


def test_the_whole_road(make, root):
    draw(root, "masks/crack/x.png")
    data = make(val_fraction=0.2)
    data.setup()
    counts = data.facts()["counts"]
    assert (counts["train"]["normal"], counts["val"]["normal"]) == (2, 1)
    assert counts["test"] == {"normal": 1, "anomalous": 3}
    assert data.store.batch(data.rows["test"])["image"].shape == (4, 1, 8, 8)


def test_new_pictures_are_told_from_masks_as_the_datas_own_are(make, tmp_path):
    source = tmp_path / "new"
    draw(source, "a.png", "p1/b.png", "masks/a_mask.png", "p1/masks/b.tif", "c.png", "drawn/c.png")
    write(source / "labels.csv", "file,label,mask", "c.png,1,drawn/c.png")
    data = make()
    roles = {path.relative_to(source).as_posix(): data.role(path, source) for path in sorted(source.rglob("*.[pt]*"))}
    assert {name for name, role in roles.items() if role == "mask"} == {
        *("masks/a_mask.png", "p1/masks/b.tif", "drawn/c.png")
    }
    assert data.known_mask(source / "a.png", source) == source / "masks" / "a_mask.png"
    assert data.known_mask(source / "p1" / "b.png", source) == source / "p1" / "masks" / "b.tif"
    assert data.known_mask(source / "c.png", source) is None
    assert data.known_mask(source / "p1" / "b.png", source / "p1") == source / "p1" / "masks" / "b.tif"
    assert data.role(source / "masks" / "a_mask.png", source / "masks") == "scan"  # it is asked for by name
