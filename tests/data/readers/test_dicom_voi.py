from pathlib import Path

import numpy as np
import pytest
from dicom_files import chest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing
from pydicom.sequence import Sequence

from anomaly_lab.data.readers.dicom_voi import Window, table_of, window_of, windowed
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
