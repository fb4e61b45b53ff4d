"""`clinfer pack`, `unpack` and `cache`: what they do, print and exit with."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from cache_helpers import program_record
from pack_helpers import filled

from clinfer.cache import Store
from clinfer.cli import main


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the caches `a` (entries 0 to 2) and `b` (1 to 3), and a key pair `key`."""
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLINFER_TRUST_FILE", str(tmp_path / "serials.json"))
    filled(tmp_path / "a")
    other = filled(tmp_path / "b", count=4)
    other.discard(program_record(0))
    assert main(["pack", "--new-key", "key"]) == 0
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """What a command prints with --json."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def failed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """What a command says when it fails."""
    capsys.readouterr()
    assert main(list(arguments)) == code
    return capsys.readouterr().err


def packed(*more: str) -> None:
    assert main(["pack", "-o", "p.clpack", "--cache-dir", "a", "--key", "key", *more]) == 0


def test_a_pack_goes_from_cache_to_cache(capsys: pytest.CaptureFixture[str]) -> None:
    key = printed(capsys, "pack", "--new-key", "other")["key"]
    arguments = ["--cache-dir", "a", "--cache-dir", "b", "--key", "key", "--key", "other"]
    made = printed(capsys, "pack", "-o", "p.clpack", "--oci", "image", "--serial", "7", *arguments)
    assert made["files"] == ["p.clpack", "image"]
    assert (made["name"], made["serial"], made["entries"]) == ("p", 7, 4)
    assert made["kinds"] == {"program": 4}
    assert made["devices"] == ["Some Device"]
    assert made["signed_by"][1] == key
    for number, pack in enumerate(("p.clpack", "image")):
        trusted = ["--trust", "other.pub"]
        done = printed(capsys, "unpack", pack, "--cache-dir", f"c{number}", *trusted)
        assert done["signed_by"] == [key]
        assert (done["stored"], done["kept"]) == (4, 0)
        assert Store(f"c{number}").info().entries == 4


def test_who_is_not_trusted_exits_with_5(capsys: pytest.CaptureFixture[str]) -> None:
    packed()
    said = failed(capsys, "unpack", "p.clpack", "--cache-dir", "c", code=5)
    assert "trusted here: none" in said
    main(["pack", "--new-key", "other"])
    failed(capsys, "unpack", "p.clpack", "--cache-dir", "c", "--trust", "other.pub", code=5)
    failed(capsys, "cache", "verify", "p.clpack", code=5)
    assert not Path("c").exists()
    assert main(["unpack", "p.clpack", "--cache-dir", "c", "--allow-unsigned"]) == 0


def test_what_is_out_of_date_exits_with_5(capsys: pytest.CaptureFixture[str]) -> None:
    trusted = ["--cache-dir", "c", "--trust", "key.pub"]
    packed("--serial", "2")
    assert main(["unpack", "p.clpack", *trusted]) == 0
    packed("--serial", "1")
    assert "serial 1, but 2" in failed(capsys, "unpack", "p.clpack", *trusted, code=5)
    assert main(["unpack", "p.clpack", *trusted, "--allow-older"]) == 0


def test_serials_grow_by_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    before = int(time.time())
    packed()
    assert printed(capsys, "cache", "info", "p.clpack")["serial"] >= before


def test_pinning_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    packed()
    trusted = ["--cache-dir", "c", "--trust", "key.pub"]
    assert "at most 100" in failed(capsys, "unpack", "p.clpack", *trusted, "--limit", "100")
    assert main(["unpack", "p.clpack", *trusted, "--pin"]) == 0
    assert printed(capsys, "cache", "prune", "c", "--size", "0")["removed"] == 0
    assert {row["pinned"] for row in printed(capsys, "cache", "list", "c")} == {True}
    assert printed(capsys, "cache", "clear", "c", "--keep-pinned")["removed"] == 0
    assert printed(capsys, "cache", "clear", "c")["removed"] == 3


def test_listing_caches_and_packs(capsys: pytest.CaptureFixture[str]) -> None:
    packed("--oci", "image", "--name", "mine")
    lists = {name: printed(capsys, "cache", "list", name) for name in ("a", "p.clpack", "image")}
    entries = [{row["entry"] for row in rows} for rows in lists.values()]
    assert entries[0] == entries[1] == entries[2]
    assert len(entries[0]) == 3
    info = printed(capsys, "cache", "info", "image")
    assert (info["name"], info["entries"], len(info["signed_by"])) == ("mine", 3, 1)
    assert printed(capsys, "cache", "info", "--cache-dir", "a")["entries"] == 3
    capsys.readouterr()
    for action in ("list", "info"):
        for name in lists:
            assert main(["cache", action, name]) == 0
    assert "Some Device" in capsys.readouterr().out


def test_verifying_and_removing(capsys: pytest.CaptureFixture[str]) -> None:
    packed()
    assert printed(capsys, "cache", "verify", "p.clpack", "--trust", "key.pub") == {"problems": []}
    victim = Store("a").folder.entry(program_record(1).digest)
    victim.write_bytes(victim.read_bytes()[:-1])
    (problem,) = printed(capsys, "cache", "verify", "a", code=1)["problems"]
    assert (problem["reason"], problem["removed"]) == ("damaged", False)
    assert "verify --remove" in failed(capsys, "pack", "-o", "q.clpack", "--cache-dir", "a")
    (problem,) = printed(capsys, "cache", "verify", "a", "--remove", code=1)["problems"]
    assert problem["removed"]
    assert main(["cache", "verify", "a"]) == 0
    data = Path("p.clpack").read_bytes()
    Path("p.clpack").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = printed(capsys, "cache", "verify", "p.clpack", "--allow-unsigned", code=1)
    assert len(found["problems"]) == 1


def test_pruning_by_age_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store("a")
    old = store.folder.entry(program_record(0).digest)
    os.utime(old, (time.time() - 7200,) * 2)
    assert printed(capsys, "cache", "prune", "a")["removed"] == 0
    assert printed(capsys, "cache", "prune", "a", "--age", "1h")["removed"] == 1
    assert printed(capsys, "cache", "prune", "a", "--size", "1K")["removed"] == 1
    with pytest.raises(SystemExit) as caught:
        main(["cache", "prune", "a", "--age", "soon"])
    assert caught.value.code == 2


def test_differences_of_caches_and_packs(capsys: pytest.CaptureFixture[str]) -> None:
    packed()
    found = printed(capsys, "cache", "diff", "p.clpack", "b")
    names = {key: [row["entry"] for row in found[key]] for key in ("gained", "lost", "renewed")}
    assert names == {
        "gained": [program_record(3).digest[:12]],
        "lost": [program_record(0).digest[:12]],
        "renewed": [],
    }
    assert (found["same"], found["rebuilt"]) == (2, 0)
    assert main(["cache", "diff", "p.clpack", "b", "--no-loss"]) == 3
    assert main(["cache", "diff", "p.clpack", "a", "--no-loss"]) == 0
    filled(Path("d"), driver="2")
    renewed = printed(capsys, "cache", "diff", "a", "d")["renewed"]
    assert [row["differs"] for row in renewed] == [{"driver": ["1.2.3", "2"]}] * 3
    capsys.readouterr()
    assert main(["cache", "diff", "a", "d"]) == 0
    assert "other driver" in capsys.readouterr().out


def test_wrong_usage_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "-o FILE" in failed(capsys, "pack", "--cache-dir", "a")
    assert "--cache-dir" in failed(capsys, "pack", "-o", "x")
    assert "--cache-dir" in failed(capsys, "unpack", "x")
    assert "go with MODEL" in failed(
        capsys, "pack", "-o", "x", "--cache-dir", "a", "--device", "CPU"
    )
    assert "nothing to pack" in failed(capsys, "pack", "-o", "x", "--cache-dir", "empty")
    assert "--sources" in failed(capsys, "pack", "-o", "x", "--cache-dir", "a", "--sources")
    assert "none is replaced" in failed(capsys, "pack", "--new-key", "key")
    assert "cannot be read" in failed(capsys, "pack", "-o", "x", "--cache-dir", "a", "--key", "no")
    assert "cannot be opened" in failed(capsys, "cache", "diff", "a", "nowhere")
    packed()
    assert "is not changed" in failed(capsys, "cache", "clear", "p.clpack")
    monkeypatch.setenv("CLINFER_CACHE_DIR", "a")
    monkeypatch.setenv("CLINFER_SIGN_KEY", "key")
    monkeypatch.setenv("CLINFER_TRUST", "key.pub")
    assert len(printed(capsys, "pack", "-o", "q.clpack")["signed_by"]) == 1
    assert printed(capsys, "unpack", "q.clpack")["kept"] == 3
