"""Servers' memory does not grow with the data that are on their disks: benchmarks/disk.py, in two sizes."""

import pytest

from benchmarks.disk import MB, measured, rows_of


def run(tmp_path, gigabytes, limit):
    rows = rows_of(gigabytes)
    result = measured(rows, tmp_path)
    assert result.disk[0] > gigabytes * 10**9 and result.disk[2] < MB
    assert max(result.peak) < limit and max(result.again) < limit, result
    return result


def test_160_megabytes(tmp_path):
    """In memory they would take 320 MB, beside the 80 MB that a server needs anyway."""
    run(tmp_path, 0.16, 300 * MB)


@pytest.mark.long
def test_two_gigabytes_with_less_than_600_megabytes_of_memory(tmp_path):
    """And more elements than a job may take whole."""
    assert run(tmp_path, 2.2, 600 * MB).accuracy > 0.9
