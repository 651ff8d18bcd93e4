from pathlib import Path

import numpy as np
import pytest
from dicom_files import chest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.sequence import Sequence

from anomaly_lab.data.readers.dicom_voi import Window, lookup_table, table_of, window_of, windowed
from anomaly_lab.types import UserError

PIXELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(128, 256), (40, 80), (200.5, 7)])
def test_windows_equal_pydicoms(function, centre, width):
    dataset = chest(PIXELS, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)
    expected = apply_windowing(PIXELS, dataset) / 255
    np.testing.assert_allclose(windowed(PIXELS.astype(float), Window(centre, width, function)), expected, atol=1e-12)


def test_a_full_window_changes_nothing():
    np.testing.assert_allclose(windowed(PIXELS.astype(float), Window(128, 256)) * 255, PIXELS)


def test_the_window_is_chosen_by_order_or_name():
    names = {"WindowCenterWidthExplanation": ["A", "B"]}
    dataset = chest(PIXELS, WindowCenter=[1, 2], WindowWidth=[3, 4], **names)
    assert window_of(Path("x"), dataset, 0, "first") == Window(1, 3)
    assert window_of(Path("x"), dataset, 0, "B") == Window(2, 4)
    assert window_of(Path("x"), dataset, 0, None) is None
    assert window_of(Path("x"), chest(PIXELS), 0, "first") is None


@pytest.mark.parametrize(("centre", "width"), [("1", "0"), ("1", "-2"), ("nan", "3"), ("1", "inf")])
def test_absurd_windows_are_refused(centre, width):
    header = Dataset()
    header.WindowCenter, header.WindowWidth = float(centre), float(width)
    with pytest.raises(UserError, match=r"^x: its window has .*data\.voi=null"):
        window_of(Path("x"), header, 0, "first")


def test_tables_by_order_or_name():
    tables = []
    for name, data in (("A", [0, 10, 4095]), ("B", [4095, 5, 0])):
        table = Dataset()
        table.LUTDescriptor, table.LUTExplanation, table.LUTData = [3, 7, 12], name, data
        tables.append(table)
    dataset = chest(np.array([[6, 7], [8, 12]], np.uint8), VOILUTSequence=Sequence(tables))
    values = np.array([[6, 7], [8, 12]])
    np.testing.assert_allclose(table_of(Path("x"), dataset, "first")(values) * 4095, [[0, 0], [10, 4095]])
    np.testing.assert_allclose(table_of(Path("x"), dataset, "B")(values) * 4095, [[4095, 4095], [5, 0]])
    assert table_of(Path("x"), dataset, "C") is None
    assert table_of(Path("x"), dataset, None) is None
    assert table_of(Path("x"), chest(PIXELS), "first") is None


CURVE = np.array([0, 3, 90, 251, 255])
DATA = {
    "bytes": CURVE.astype(np.uint8).tobytes() + b"\0",
    "words": CURVE.astype("<u2").tobytes(),
    "numbers": CURVE.tolist(),
}


@pytest.mark.parametrize("form", DATA)
def test_tables_of_eight_bits_come_in_bytes_or_words(form):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [5, 10, 8], DATA[form]
    dataset = chest(PIXELS, VOILUTSequence=Sequence([table]))
    shown = table_of(Path("x"), dataset, "first")(np.array([0, 10, 11, 12, 13, 14, 99]))
    np.testing.assert_allclose(shown * 255, [0, 0, 3, 90, 251, 255, 255])


def test_the_first_input_is_signed_where_inputs_are():
    table, header = Dataset(), Dataset()
    table.LUTDescriptor, table.LUTData = [3, 65536 - 2, 16], [7, 8, 9]
    assert lookup_table(table, header, signed=True)(np.array([-3, -2, -1, 0, 5])).tolist() == [7, 7, 8, 9, 9]
    assert lookup_table(table, header, signed=False)(np.array([0, 65534, 65535])).tolist() == [7, 7, 8]
    table.LUTDescriptor = [3, -2, 16]
    assert lookup_table(table, header, signed=True).first == -2


def test_no_entry_is_brighter_than_white():
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [2, 0, 8], [0, 4095]
    assert table_of(Path("x"), chest(PIXELS, VOILUTSequence=Sequence([table])), "first")(np.array([0, 1])).max() == 1


@pytest.mark.parametrize(
    ("descriptor", "data"), [([4, 0, 8], [1, 2]), ([0, 0, 16], [1, 2]), ([2, 0, 0], [1, 2]), ([2, 0, 17], [1, 2])]
)
def test_tables_that_promise_too_much_are_refused(descriptor, data):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = descriptor, data
    with pytest.raises(UserError, match=r"^x: its VOI LUT cannot be used"):
        table_of(Path("x"), chest(PIXELS, VOILUTSequence=Sequence([table])), "first")
