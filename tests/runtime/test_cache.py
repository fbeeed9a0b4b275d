"""Compiled programs are kept only where nobody but their owner can put any, and few of them."""

import os

import jax
import pytest

from jaxgrad.runtime import cache


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Ten programs of 10 bytes in two folders, the first the longest unused, and one other file."""
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


@pytest.fixture
def settings(monkeypatch):
    """What `turn_on` sets of JAX, instead of being set; no cache is set up yet."""
    found = {}
    before, set_it = jax.config.values["jax_compilation_cache_dir"], jax.config.update
    set_it("jax_compilation_cache_dir", None)
    monkeypatch.setattr(jax.config, "update", found.__setitem__)
    monkeypatch.setattr(cache.atexit, "register", lambda *_, **__: None)
    monkeypatch.setattr(cache, "_empty_if_damaged", lambda _: None)
    yield found
    set_it("jax_compilation_cache_dir", before)


def test_a_folder_is_made_for_its_owner_alone_with_the_folders_above_it(
    tmp_path, monkeypatch, settings
):
    monkeypatch.setenv("JAXGRAD_CACHE", str(tmp_path / "a" / "b"))
    before = os.umask(0)
    try:
        assert cache.turn_on() is None
    finally:
        os.umask(before)
    (machine,) = (tmp_path / "a" / "b").iterdir()
    assert settings["jax_compilation_cache_dir"] == str(machine)
    for made in (machine, machine.parent, machine.parent.parent):
        assert made.stat().st_mode & 0o777 == 0o700


def writable(folder):
    folder.mkdir()
    folder.chmod(0o777)


def group_writable(folder):
    folder.mkdir()
    folder.chmod(0o720)


def link(folder):
    (folder.parent / "there").mkdir(0o700)
    folder.symlink_to("there")


def below_what_all_can_write(folder):
    folder.mkdir(0o700)
    folder.parent.chmod(0o777)


def a_machines_folder_writable(folder):
    (folder / cache._machine()).mkdir(0o700, parents=True)
    folder.chmod(0o700)
    (folder / cache._machine()).chmod(0o777)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are those of POSIX")
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (writable, "others can write"),
        (group_writable, "others can write"),
        (link, "is a link"),
        (below_what_all_can_write, "others can write"),
        (a_machines_folder_writable, "others can write"),
    ],
)
def test_a_folder_into_which_others_can_put_programs_is_told_of_and_not_used(
    tmp_path, monkeypatch, settings, make, told
):
    folder = tmp_path / "kept"
    make(folder)
    monkeypatch.setenv("JAXGRAD_CACHE", str(folder))
    said = cache.turn_on()
    assert said is not None and told in said and "remove it, or set JAXGRAD_CACHE" in said
    assert settings == {}


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are those of POSIX")
def test_a_folder_of_another_user_is_told_of_and_not_used(tmp_path, monkeypatch, settings):
    (tmp_path / "kept").mkdir(0o700)
    monkeypatch.setenv("JAXGRAD_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "kept").stat().st_uid + 1)
    assert "belongs to another user" in str(cache.turn_on())
    assert settings == {}


def test_a_relative_cache_home_is_ignored(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXGRAD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "jaxgrad"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert "relative" not in str(cache.folder())


def test_a_cache_that_the_user_has_set_up_is_left_alone(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("JAXGRAD_CACHE", str(tmp_path / "kept"))
    type(jax.config).update(jax.config, "jax_compilation_cache_dir", "/theirs")
    assert cache.turn_on() is None
    assert settings == {} and not (tmp_path / "kept").exists()
