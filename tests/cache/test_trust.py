"""Directories that others can write are refused for reading and writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_helpers import NOBODY, noise, posix_only, program_record

from clinfer.cache import Store, trust

pytestmark = posix_only

RECORD = program_record()
BINARY = {"binary": noise(100)}
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away"
)


def everybody_writes(path: Path) -> None:
    path.chmod(0o777)


def a_group_writes(path: Path) -> None:
    os.chown(path, -1, 54321)
    path.chmod(0o770)


def somebody_owns(path: Path) -> None:
    os.chown(path, NOBODY, -1)


CASES = [
    pytest.param(everybody_writes, "can be written by every user", id="world"),
    pytest.param(a_group_writes, "can be written by group 54321", id="group", marks=as_root),
    pytest.param(somebody_owns, f"belongs to user {NOBODY}", id="owner", marks=as_root),
]


def expect_refusal(directory: Path, message: str, written: bool) -> None:
    store = Store(directory)
    assert not store.put(RECORD, BINARY)
    assert store.stats.unstored == {"refused": 1}
    assert store.get(RECORD) is None
    assert store.stats.misses == {"refused" if written else "absent": 1}
    assert list(store.entries()) == []
    if written:
        problem = store.info().problem or ""
        assert message in problem
        assert "CLINFER_CACHE_ALLOW_SHARED=1" in problem


@pytest.mark.parametrize(("fault", "message"), CASES)
def test_a_directory_that_others_change(
    store: Store, fault: Callable[[Path], None], message: str
) -> None:
    store.put(RECORD, BINARY)
    fault(store.directory)
    expect_refusal(store.directory, message, written=True)


@pytest.mark.parametrize(("fault", "message"), CASES)
def test_a_parent_that_others_change(
    store: Store, fault: Callable[[Path], None], message: str
) -> None:
    store.put(RECORD, BINARY)
    fault(store.directory.parent)
    expect_refusal(store.directory, f"its parent '{store.directory.parent}' {message}", True)


def test_nothing_is_created_below_such_a_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    expect_refusal(tmp_path / "a" / "cache", "every user", written=False)
    assert list(tmp_path.iterdir()) == []


def test_a_change_while_running_is_noticed(store: Store) -> None:
    store.put(RECORD, BINARY)
    assert store.get(RECORD) is not None
    store.directory.chmod(0o777)
    assert store.get(RECORD) is None
    store.directory.chmod(0o700)
    assert store.get(RECORD) is not None


def test_a_sticky_parent_is_fine_and_a_sticky_cache_is_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    store = Store(tmp_path / "cache")
    assert store.put(RECORD, BINARY)
    assert store.get(RECORD) is not None
    expect_refusal(tmp_path, "every user", written=True)


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    planted = shared / "cache"
    Store(planted, allow_shared=True).put(RECORD, BINARY)
    (tmp_path / "link").symlink_to(planted)
    expect_refusal(tmp_path / "link", f"its parent '{shared}' can be", written=True)


def test_the_refusal_can_be_overridden(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(RECORD, BINARY)
    store.directory.chmod(0o777)
    assert Store(store.directory, allow_shared=True).get(RECORD) is not None
    monkeypatch.setenv("CLINFER_CACHE_ALLOW_SHARED", "1")
    assert Store(store.directory).get(RECORD) is not None
    assert Store(store.directory).put(RECORD, BINARY)
    assert Store(store.directory, allow_shared=False).get(RECORD) is None


def test_the_private_group_of_the_user_may_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(RECORD, BINARY)
    store.directory.chmod(0o775)
    monkeypatch.setattr(trust, "_is_private", lambda gid: gid == store.directory.stat().st_gid)
    assert store.get(RECORD) is not None


def test_which_groups_are_private(monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    user = pwd.struct_passwd(("ann", "x", os.geteuid(), 700, "", "/", ""))
    groups = {
        700: grp.struct_group(("ann", "x", 700, ["ann"])),
        701: grp.struct_group(("ann", "x", 701, [])),
        702: grp.struct_group(("staff", "x", 702, [])),
    }
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    monkeypatch.setattr(grp, "getgrgid", groups.__getitem__)
    trust._is_private.cache_clear()
    assert trust._is_private(0)
    assert trust._is_private(700)
    assert not trust._is_private(701)  # not the user's primary group
    assert not trust._is_private(702)  # not named like the user
    assert not trust._is_private(703)  # unknown
    groups[700] = grp.struct_group(("ann", "x", 700, ["ann", "bob"]))
    trust._is_private.cache_clear()
    assert not trust._is_private(700)
    trust._is_private.cache_clear()
