"""Keys and signatures."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cache_helpers import posix_only, run_python
from pack_helpers import KEY, OTHER_KEY

from clinfer.cache.policy import Trust
from clinfer.cache.signing import Signature, SigningKey, check, load_public_keys
from clinfer.errors import CacheError, UntrustedError

MESSAGE = b"a message"


def test_a_key_pair_is_kept_in_files(tmp_path: Path) -> None:
    key = SigningKey.generate()
    public = key.save(tmp_path / "new" / "key")
    assert public == tmp_path / "new" / "key.pub"
    assert load_public_keys([public]) == (key.public,)
    loaded = SigningKey.load(tmp_path / "new" / "key")
    signature = loaded.sign(b"test\n", MESSAGE)
    assert check(b"test\n", MESSAGE, [signature], [key.public]) == (key.public,)
    assert Signature.decode(signature.encode()) == signature


def test_a_private_key_is_not_shown() -> None:
    assert repr(KEY) == f"<signing key {KEY.public.id}>"
    assert len(KEY.public.id) == 16


@posix_only
def test_a_private_key_is_its_owners(tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o660):
        (tmp_path / "key").chmod(mode)
        with pytest.raises(CacheError, match="open to others"):
            SigningKey.load(tmp_path / "key")


@pytest.mark.parametrize("present", ["key", "key.pub"])
def test_keys_are_never_replaced(present: str, tmp_path: Path) -> None:
    (tmp_path / present).write_text("mine")
    with pytest.raises(CacheError, match="none is replaced"):
        KEY.save(tmp_path / "key")
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_text() == "mine"
    with pytest.raises(CacheError, match="cannot be written"):
        KEY.save(tmp_path / present / "key")


def test_a_file_may_hold_several_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(KEY.public.pem() + b"# a comment\n" + OTHER_KEY.public.pem())
    assert load_public_keys([file, file]) == (KEY.public, OTHER_KEY.public)


def test_what_is_no_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import x25519

    other = x25519.X25519PrivateKey.generate()
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    public = other.public_key().public_bytes(serialization.Encoding.PEM, subject)
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private = other.private_bytes(serialization.Encoding.PEM, *form)
    file = tmp_path / "file"
    block = b"-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n"
    for content, message in (
        (b"", "holds no public key"),
        (block % b"AAAA", "cannot be read|can be read"),
        (block % b"", "can be read"),
        (public, "of another kind"),
    ):
        file.write_bytes(content)
        with pytest.raises(CacheError, match=message):
            load_public_keys([file])
    file.chmod(0o600)
    for content, message in ((b"nothing", "can be read"), (private, "of another kind")):
        file.write_bytes(content)
        with pytest.raises(CacheError, match=message):
            SigningKey.load(file)
    for absent in (tmp_path / "absent", tmp_path, Path("nul\0")):
        with pytest.raises(CacheError, match="cannot be read"):
            load_public_keys([absent])
        with pytest.raises(CacheError, match="cannot be read"):
            SigningKey.load(absent)


def test_signatures_hold_for_one_message_purpose_and_key() -> None:
    signature = KEY.sign(b"test\n", MESSAGE)
    keys = [KEY.public, OTHER_KEY.public]
    assert check(b"test\n", MESSAGE, [signature], keys) == (KEY.public,)
    assert check(b"test\n", MESSAGE, [signature], [OTHER_KEY.public]) == ()
    assert check(b"test\n", MESSAGE, [], keys) == ()
    stolen = Signature(OTHER_KEY.public, signature.value)
    for purpose, message, given in (
        (b"test\n", MESSAGE + b"!", signature),
        (b"other\n", MESSAGE, signature),
        (b"test\n", MESSAGE, stolen),
        (b"test\n", MESSAGE, Signature(KEY.public, bytes(64))),
    ):
        with pytest.raises(UntrustedError, match="does not fit"):
            check(purpose, message, [given], keys)


def test_the_environment_names_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    KEY.save(tmp_path / "a")
    OTHER_KEY.save(tmp_path / "b")
    monkeypatch.setenv("CLINFER_TRUST_FILE", str(tmp_path / "serials.json"))
    monkeypatch.setenv("CLINFER_TRUST", str(tmp_path / "a.pub"))
    trust = Trust.load([tmp_path / "b.pub"])
    assert set(trust.keys) == {KEY.public, OTHER_KEY.public}
    assert trust.serial_file == tmp_path / "serials.json"
    assert not trust.allow_unsigned
    monkeypatch.setenv("CLINFER_ALLOW_UNSIGNED", "1")
    assert Trust.load().allow_unsigned
    assert not Trust.load(allow_unsigned=False).allow_unsigned
    monkeypatch.setenv("CLINFER_TRUST", str(tmp_path / "absent"))
    with pytest.raises(CacheError, match="absent"):
        Trust.load()


def test_the_default_file_of_serials_is_the_users() -> None:
    file = Trust.load().serial_file
    assert file is not None
    assert file.is_absolute()
    assert (file.parent.name, file.name) == ("clinfer", "serials.json")


def test_openssl_understands_keys_and_signatures(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = SigningKey.generate()
    key.save(tmp_path / "key")
    (tmp_path / "message").write_bytes(b"test\n" + MESSAGE)
    (tmp_path / "signature").write_bytes(key.sign(b"test\n", MESSAGE).value)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pub", "-rawin"]
    command += ["-in", "message", "-sigfile", "signature"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "Verified Successfully" in done.stdout


def test_without_the_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KEY.save(tmp_path / "key")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(CacheError, match=r"clinfer\[pack\]"):
        load_public_keys([tmp_path / "key.pub"])
    with pytest.raises(CacheError, match=r"clinfer\[pack\]"):
        SigningKey.generate()


def test_the_package_is_loaded_where_it_is_used() -> None:
    code = (
        "import sys, clinfer.cache.pack, clinfer.cache.packing, clinfer.cache.remote\n"
        "from clinfer.cli.parser import make_parser\n"
        "make_parser()\n"
        "print(sorted({'cryptography', 'fsspec'} & set(sys.modules)))\n"
    )
    assert run_python(code).strip() == "[]"
