"""What tells two files of equal names, sizes and times apart."""

import os

import pytest

from anomaly_lab.data.store.content import BLOCK, sampled


@pytest.mark.parametrize("size", [1, 3 * BLOCK, 3 * BLOCK + 1, 10 * BLOCK])
def test_other_bytes_at_either_end_and_in_the_middle_are_noticed(tmp_path, size):
    path = tmp_path / "a.pgm"
    found = set()
    for place in (None, 0, size // 2, size - 1):
        content = bytearray(size)
        if place is not None:
            content[place] = 1
        path.write_bytes(content)
        found.add(sampled([path]))
    assert len(found) == (2 if size == 1 else 4)


def test_small_files_are_read_whole_and_large_ones_are_not(tmp_path):
    path, hashes = tmp_path / "a.pgm", []
    for size in (3 * BLOCK, 10 * BLOCK):
        for value in (0, 1):
            content = bytearray(size)
            content[BLOCK + 9] = value
            path.write_bytes(content)
            hashes.append(sampled([path]))
    assert hashes[0] != hashes[1]
    assert hashes[2] == hashes[3]


def test_what_cannot_be_read_counts_as_empty_and_keeps_nobody_waiting(tmp_path):
    (empty := tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    assert sampled([empty]) == sampled([tmp_path / "pipe"]) == sampled([tmp_path / "gone"])
    assert sampled([empty, empty]) != sampled([empty])
