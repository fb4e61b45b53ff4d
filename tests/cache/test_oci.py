"""Packs as OCI image layouts: what registry tools expect, and nothing else is taken."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cache_helpers import noise, posix_only, program_record
from pack_helpers import KEY, TRUSTED, filled, make_pack

from clinfer.cache import Layers, Store
from clinfer.cache import layer_tar as tar
from clinfer.cache.oci import default_platform
from clinfer.cache.pack import Pack
from clinfer.errors import CacheError

Json = dict[str, Any]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return make_pack(tmp_path / "layout", filled(tmp_path / "cache"))


def document(path: Path) -> Json:
    found: Json = json.loads(path.read_bytes())
    return found


def blob(layout: Path, described: Json) -> Path:
    """The file a descriptor names, after its size and digest have been checked."""
    kind, _, digest = described["digest"].partition(":")
    path = layout / "blobs" / kind / digest
    data = path.read_bytes()
    assert len(data) == described["size"]
    assert hashlib.sha256(data).hexdigest() == digest
    return path


def parts(layout: Path) -> tuple[Json, Json, Path]:
    """Manifest, configuration and layer of a layout for one platform."""
    index = document(layout / "index.json")
    (described,) = index["manifests"]
    manifest = document(blob(layout, described))
    return manifest, document(blob(layout, manifest["config"])), blob(layout, manifest["layers"][0])


def test_the_layout_is_what_the_specification_asks(layout: Path) -> None:
    assert document(layout / "oci-layout") == {"imageLayoutVersion": "1.0.0"}
    index = document(layout / "index.json")
    assert (index["schemaVersion"], len(index["manifests"])) == (2, 1)
    top = index["manifests"][0]
    assert top["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert top["annotations"] == {"org.opencontainers.image.ref.name": "latest"}
    manifest, config, layer = parts(layout)
    assert manifest["schemaVersion"] == 2
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    assert manifest["annotations"]["org.opencontainers.image.version"] == "1"
    assert config["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{layer.name}"]}
    assert f"{config['os']}/{config['architecture']}" == default_platform()
    files = {path for path in layout.rglob("*") if path.is_file()}
    assert len(files) == 5


def test_several_platforms_share_one_layer(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    wanted = ["linux/amd64", "linux/arm64/v8"]
    layout = make_pack(tmp_path / "layout", filled(tmp_path / "cache"), platforms=wanted)
    (top,) = document(layout / "index.json")["manifests"]
    assert top["mediaType"] == "application/vnd.oci.image.index.v1+json"
    manifests = document(blob(layout, top))["manifests"]
    assert [m["platform"] for m in manifests] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v8"},
    ]
    layers = {json.dumps(document(blob(layout, m))["layers"]) for m in manifests}
    assert len(layers) == 1
    with Pack.open(layout, TRUSTED) as pack:
        assert pack.verify() == []
    with pytest.raises(CacheError, match="is no platform"):
        make_pack(tmp_path / "other", Store(tmp_path / "cache"), platforms=["Linux"])


@posix_only
def test_an_unpacked_image_is_a_cache_directory(layout: Path, tmp_path: Path) -> None:
    """As Kubernetes mounts it: unpacked by somebody else, by other tools."""
    _, _, layer = parts(layout)
    mounted = tmp_path / "mounted"
    mounted.mkdir(mode=0o755)
    with tarfile.open(layer) as archive:
        for member in archive.getmembers():
            assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
            assert member.mode == (0o755 if member.isdir() else 0o644)
            assert member.isdir() or member.isreg()
        archive.extractall(mounted, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))
    assert sorted(p.name for p in mounted.iterdir()) == ["CACHEDIR.TAG", "entries", "pack.index"]
    layers = Layers.open("", path=[mounted])
    for number in range(3):
        entry = layers.get(program_record(number))
        assert entry is not None
        assert bytes(entry.section("binary")) == noise(200 + 50 * number, number)
    with Pack.open(mounted, TRUSTED) as pack:
        assert pack.signers == (KEY.public,)
        assert pack.verify() == []


def test_headers_are_those_of_the_standard() -> None:
    for name, size in (("entries/ab/", 0), ("pack.index", 12345), ("CACHEDIR.TAG", 0o77777777777)):
        info = tarfile.TarInfo.frombuf(tar.header(name, size), "ascii", "strict")
        assert (info.name, info.size) == (name.rstrip("/"), size)
        assert info.isdir() == name.endswith("/")


def test_a_layout_is_not_written_over_anything(layout: Path, tmp_path: Path) -> None:
    before = sorted(layout.rglob("*"))
    with pytest.raises(CacheError, match="new or empty"):
        make_pack(layout, Store(tmp_path / "cache"))
    assert sorted(layout.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    make_pack(tmp_path / "empty", Store(tmp_path / "cache"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "empty", "layout"]


# -- layers that others made -----------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: Any) -> bytes:
    """A member as other tools write it."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    padded = data + bytes(-len(data) % 512)
    return info.tobuf(tarfile.USTAR_FORMAT) + padded


ENTRY = "entries/ab/ab" + "0" * 62
FOREIGN = {
    "parent": tar.header("../evil", 0),
    "absolute": tar.header("/etc/cron.d/evil", 0),
    "inside": tar.header("entries/ab/../../../evil", 0),
    "other name": tar.header("evil", 0),
    "other folder": tar.header("entries/zz/", 0),
    "entry in another's folder": tar.header(ENTRY.replace("/ab/", "/cd/"), 0),
    "entry twice": tar.header(ENTRY, 0) * 2,
    "folder twice": tar.header("entries/", 0) * 2,
    "device name": tar.header("NUL", 0),
    "symbolic link": member(ENTRY, tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member(ENTRY, tarfile.LNKTYPE, linkname="pack.index"),
    "character device": member(ENTRY, tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": member(ENTRY, tarfile.BLKTYPE),
    "fifo": member(ENTRY, tarfile.FIFOTYPE),
    "folder for an entry": member(ENTRY, tarfile.DIRTYPE),
    "long name": member("x", tarfile.GNUTYPE_LONGNAME, b"../evil\0"),
    "pax header": member("x", tarfile.XHDTYPE, b"20 path=../../evil\n"),
    "sparse": member(ENTRY, tarfile.GNUTYPE_SPARSE),
    "set-user-id": member(ENTRY, mode=0o4755),
    "other owner": member(ENTRY, uid=1000),
    "time": member(ENTRY, mtime=1),
    "size in base 256": tar.header(ENTRY, 0)[:124] + b"\x80" + bytes(11) + bytes(376),
    "negative size": tar.header(ENTRY, 0)[:124] + b"-0000000001\0" + bytes(376),
    "size behind the end": tar.header(ENTRY, 10**9),
    "folder with content": tar.header("entries/", 512) + bytes(512),
    "noise": noise(512),
}


@pytest.mark.parametrize("planted", FOREIGN.values(), ids=FOREIGN.keys())
def test_members_that_do_not_belong(planted: bytes, tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(tar.header("CACHEDIR.TAG", 0) + planted + tar.end())
    with path.open("rb", buffering=0) as file, pytest.raises(CacheError):
        tar.walk(file)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-512],
        lambda data: data[:-1],
        lambda data: data + bytes(512),
        lambda data: data[:-1] + b"x",
        lambda data: b"",
        lambda data: bytes(512),
        lambda data: data[:600] + b"x" + data[601:],
    ],
)
def test_archives_that_do_not_end_or_pad_as_they_should(
    spoil: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "layer"
    good = tar.header("CACHEDIR.TAG", 3) + b"tag" + tar.padding(3) + tar.end()
    for data, fine in ((good, True), (spoil(good), False)):
        path.write_bytes(data)
        with path.open("rb", buffering=0) as file:
            if fine:
                assert list(tar.walk(file)) == ["CACHEDIR.TAG"]
            else:
                with pytest.raises(CacheError):
                    tar.walk(file)


def replaced_layer(layout: Path, data: bytes) -> None:
    """The layer replaced, with digests that fit all the way up."""
    manifest, _, old = parts(layout)
    old.unlink()
    blobs = layout / "blobs" / "sha256"

    def put(content: bytes) -> Json:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    manifest["layers"][0].update(put(data))
    index = document(layout / "index.json")
    index["manifests"][0].update(put(json.dumps(manifest).encode()))
    (layout / "index.json").write_text(json.dumps(index))


def test_a_layer_without_index_or_with_other_entries(layout: Path, tmp_path: Path) -> None:
    _, _, layer = parts(layout)
    members = BytesIO(layer.read_bytes())
    with tarfile.open(fileobj=members) as archive:
        infos = archive.getmembers()
        contents = {
            i.name: b"" if i.isdir() else archive.extractfile(i).read()  # type: ignore[union-attr]
            for i in infos
        }

    def rebuilt(left_out: str) -> bytes:
        data = b""
        for info in infos:
            content = contents[info.name]
            name = info.name + "/" * info.isdir()
            if name != left_out:
                data += tar.header(name, len(content)) + content + tar.padding(len(content))
        return data + tar.end()

    entry = next(info.name for info in infos if info.name.count("/") == 2)
    for left_out, message in (
        ("nothing", ""),
        ("pack.index", "has no 'pack.index'"),
        (entry, "are not the 3 of its index"),
    ):
        replaced_layer(layout, rebuilt(left_out))
        if message:
            with pytest.raises(CacheError, match=message):
                Pack.open(layout, TRUSTED)
        else:
            Pack.open(layout, TRUSTED).close()


def test_documents_that_say_something_else(layout: Path) -> None:
    index = document(layout / "index.json")
    manifest, _, _ = parts(layout)
    described = index["manifests"][0]

    def expect(message: str, changed: Any) -> None:
        (layout / "index.json").write_text(
            changed if isinstance(changed, str) else json.dumps(changed)
        )
        with pytest.raises(CacheError, match=message):
            Pack.open(layout, TRUSTED)

    expect("not JSON", "{")
    expect("not JSON", "[" * 10**5)
    expect("not a JSON object", "[]")
    expect("no list of descriptors", {})
    expect("no list of descriptors", {"manifests": []})
    expect("no list of descriptors", {"manifests": ["x"]})
    for digest in ("sha256:../../etc/passwd", "sha512:" + "0" * 128, "sha256:" + "A" * 64, 7, None):
        expect("is no digest of a blob", {"manifests": [{**described, "digest": digest}]})
    expect("no such file", {"manifests": [{**described, "digest": "sha256:" + "0" * 64}]})
    for layers in ([], manifest["layers"] * 2, "x", [7]):
        changed = json.dumps({**manifest, "layers": layers}).encode()
        name = hashlib.sha256(changed).hexdigest()
        (layout / "blobs" / "sha256" / name).write_bytes(changed)
        expect("not one layer|list of desc", {"manifests": [{"digest": f"sha256:{name}"}]})
    gzipped = [
        {**manifest["layers"][0], "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
    ]
    changed = json.dumps({**manifest, "layers": gzipped}).encode()
    name = hashlib.sha256(changed).hexdigest()
    (layout / "blobs" / "sha256" / name).write_bytes(changed)
    expect("only .* is read in place", {"manifests": [{"digest": f"sha256:{name}"}]})
    (layout / "blobs" / "sha256" / name).write_bytes(changed + b" ")
    expect("its digest does not match", {"manifests": [{"digest": f"sha256:{name}"}]})


@posix_only
def test_a_layer_that_is_a_link(layout: Path, tmp_path: Path) -> None:
    _, _, layer = parts(layout)
    layer.rename(tmp_path / "elsewhere")
    layer.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="cannot be opened"):
        Pack.open(layout, TRUSTED)
