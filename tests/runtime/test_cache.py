"""The folder of compiled programs is kept small, and is looked over only after something was added
to it.
"""

import os

import pytest

from jaxgrad.runtime import cache


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Ten programs of 10 bytes in two folders, the first the longest unused, and one file that is
    none of ours.
    """
    monkeypatch.setattr(cache, "LIMIT", 60)
    made = []
    for i in range(10):
        path = tmp_path / ("old" if i < 4 else "new") / f"{i}-cache"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10))
        os.utime(path, (1000 + i, 1000 + i))
        made.append(path)
    (tmp_path / "old" / "notes").write_bytes(bytes(1000))
    return made


def test_programs_longest_unused_are_removed_until_half_of_the_limit_is_free(programs, tmp_path):
    cache._trim(tmp_path, tmp_path / "new", before=0)
    assert [path.exists() for path in programs] == [False] * 7 + [True] * 3
    assert (tmp_path / "old" / "notes").exists()


def test_a_folder_to_which_nothing_was_added_is_not_looked_over(programs, tmp_path):
    cache._trim(tmp_path, tmp_path / "new", before=(tmp_path / "new").stat().st_mtime_ns)
    assert all(path.exists() for path in programs)


def test_a_cache_below_its_limit_is_left_alone(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 100)
    cache._trim(tmp_path, tmp_path / "new", before=0)
    assert all(path.exists() for path in programs)


def test_a_cache_that_is_gone_is_no_error(tmp_path):
    cache._trim(tmp_path, tmp_path / "none", before=0)
