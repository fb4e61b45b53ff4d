"""`clinfer cache`: what a cache or pack holds, whether it is intact, and making room."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinfer.cli import common
from clinfer.cli.caches import chosen_cache
from clinfer.cli.output import complain, emit_json, size_text, table
from clinfer.errors import CacheError, PropertyError, UntrustedError

if TYPE_CHECKING:
    from clinfer.cache.coverage import Difference
    from clinfer.cache.folder import Removed
    from clinfer.cache.index import IndexEntry
    from clinfer.cache.pack import Pack
    from clinfer.cache.store import Store

INCOMPLETE = 3
_AGE = re.compile(r"(\d{1,9})\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def arguments(parser: argparse.ArgumentParser) -> None:
    """list | info | verify | prune | clear | diff, each with arguments of its own."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = _action(actions, "list", _list, "the entries of a cache or pack")
    _place(listing)
    _place(_action(actions, "info", _info, "a cache or pack in numbers"))
    verify = _action(actions, "verify", _verify, "read and check every entry")
    _place(verify)
    verify.add_argument("--remove", action="store_true", help="remove damaged entries of a cache")
    verify.add_argument(
        "--probe",
        action="store_true",
        help="also give each binary for a device here to its driver, in a child process",
    )
    common.trust_arguments(verify)
    prune = _action(actions, "prune", _prune, "remove entries that have not been used for long")
    _place(prune)
    prune.add_argument(
        "--size",
        type=common.size_bytes,
        help="what may be left, say 2G; default: CLINFER_CACHE_SIZE, unless --age is given",
    )
    prune.add_argument("--age", type=_age, help="entries unused for this long go, say 30d or 12h")
    clear = _action(actions, "clear", _clear, "remove all entries")
    _place(clear)
    clear.add_argument("--keep-pinned", action="store_true", help="leave pinned entries")
    diff = _action(actions, "diff", _diff, "the coverage that B gained and lost against A")
    diff.add_argument("before", metavar="A", type=Path, help="a pack or cache directory")
    diff.add_argument("after", metavar="B", type=Path, help="a pack or cache directory")
    diff.add_argument(
        "--no-loss", action="store_true", help=f"exit with {INCOMPLETE} where coverage is lost"
    )


def run(options: argparse.Namespace) -> int:
    """Runs one action."""
    code: int = options.action(options)
    return code


def _action(
    actions: Any, name: str, run_action: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    # Not to overwrite what stands before the action.
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    parser.set_defaults(action=run_action)
    return parser


def _place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", nargs="?", metavar="PLACE", help="a cache directory or a pack")
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="default: CLINFER_CACHE_DIR, else the user's cache folder",
    )


def _age(text: str) -> float:
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected an age, say 30d or 12h, found {text!r}")
    return float(match[1]) * _SECONDS[match[2]]


def _path(options: argparse.Namespace) -> Path:
    path, _ = chosen_cache(options.place or options.cache_dir)
    if not path.exists():
        raise CacheError(f"there is no cache or pack at '{path}'")
    if not (path.is_dir() or path.is_file()):
        raise CacheError(f"'{path}' is a pipe or a device; expected a cache directory or a pack")
    return path


def _store(options: argparse.Namespace) -> Store:
    """The cache to change. Raises PropertyError for a pack, which does not change."""
    from clinfer.cache.pack import is_pack
    from clinfer.cache.store import Store

    path = _path(options)
    if is_pack(path):
        raise PropertyError(f"'{path}' is a pack, which is not changed: name a cache directory")
    return Store(path)


def _believed(store: Store) -> Store:
    """The store; raises UntrustedError where others can write it, CacheError where it is closed."""
    from clinfer.cache.stats import Reason

    refusal = store.refusal()
    if refusal is not None:
        raise (UntrustedError if refusal.reason is Reason.REFUSED else CacheError)(refusal.detail)
    return store


def _list(options: argparse.Namespace) -> int:
    from clinfer.cache.coverage import describe
    from clinfer.cache.pack import is_pack
    from clinfer.cache.store import Store

    path = _path(options)
    if is_pack(path):
        with _looked_at(path) as pack:
            rows = [{**describe(e.record), "size": e.size} for e in pack.index.entries]
    else:
        rows = [
            {**describe(e.record), "size": e.size, "pinned": e.pinned}
            for e in _believed(Store(path, readonly=True)).entries()
        ]
    if options.json:
        emit_json(rows)
        return 0
    _print_entries(rows)
    print(f"{len(rows)} entries in {path}")
    return 0


def _info(options: argparse.Namespace) -> int:
    from clinfer.cache.pack import is_pack
    from clinfer.cache.store import Store

    path = _path(options)
    if is_pack(path):
        with _looked_at(path) as pack:
            document = _pack_info(pack)
    else:
        _, limit = chosen_cache(options.place or options.cache_dir)
        document = {**vars(Store(path, readonly=True, size_limit=limit or None).info())}
        del document["readonly"]
    if options.json:
        emit_json(document)
        return 0
    for name, value in document.items():
        if value not in (None, [], {}):
            print(f"{name}: {size_text(value) if name in ('bytes', 'limit') else value}")
    return 0


def _pack_info(pack: Pack) -> dict[str, Any]:
    from collections import Counter

    records = [entry.record for entry in pack.index.entries]
    return {
        "pack": str(pack.directory),
        "name": pack.index.name,
        "serial": pack.index.serial,
        "signed_by": list(pack.signed_by),
        "entries": len(records),
        "bytes": pack.index.nbytes,
        "kinds": dict(Counter(record.kind for record in records)),
        "devices": sorted({str(r.get("device")) for r in records if r.get("device")}),
    }


def _verify(options: argparse.Namespace) -> int:
    from clinfer.cache.pack import Pack, is_pack

    path = _path(options)
    if is_pack(path):
        with Pack.open(path, common.trust(options)) as pack:
            problems = pack.verify()
    else:
        problems = _believed(_store(options)).verify(remove=options.remove)
        if options.probe:
            from clinfer.plugins.probe import probe

            problems += probe(_store(options), remove=options.remove)
    rows = [
        {"entry": p.digest[:12], "reason": str(p.reason), "detail": p.detail, "removed": p.removed}
        for p in problems
    ]
    if options.json:
        emit_json({"problems": rows})
    else:
        if rows:
            table(rows, list(rows[0]))
        print(f"{len(rows)} damaged entries in {path}")
    return 1 if rows else 0


def _prune(options: argparse.Namespace) -> int:
    limit = options.size
    if limit is None and options.age is None:
        limit = chosen_cache(options.place or options.cache_dir)[1] or None
    return _print_removed(options, _store(options).prune(limit=limit, age=options.age))


def _clear(options: argparse.Namespace) -> int:
    return _print_removed(options, _store(options).clear(keep_pinned=options.keep_pinned))


def _print_removed(options: argparse.Namespace, removed: Removed) -> int:
    if options.json:
        emit_json({"removed": removed.entries, "bytes": removed.bytes, "stuck": removed.stuck})
    else:
        print(f"removed {removed.entries} entries, {size_text(removed.bytes)}")
    if removed.stuck:
        complain(f"{removed.stuck} entries could not be removed: is the directory read-only?")
    return 1 if removed.stuck else 0


def _diff(options: argparse.Namespace) -> int:
    from clinfer.cache.coverage import difference

    with _looked_at(options.before) as before, _looked_at(options.after) as after:
        found = difference(before.index, after.index)
    if options.json:
        emit_json(_difference(found))
    else:
        _print_difference(found)
    return INCOMPLETE if options.no_loss and found.lost else 0


def _difference(found: Difference) -> dict[str, Any]:
    from clinfer.cache.coverage import describe

    renewed = [
        {
            **describe(item.after.record),
            "differs": {d.name: [d.here, d.there] for d in item.differences},
        }
        for item in found.renewed
    ]
    return {
        "gained": [describe(entry.record) for entry in found.gained],
        "lost": [describe(entry.record) for entry in found.lost],
        "renewed": renewed,
        "same": found.same,
        "rebuilt": found.rebuilt,
    }


def _print_difference(found: Difference) -> None:
    for title, entries in (("gained", found.gained), ("lost", found.lost)):
        print(f"{title}: {len(entries)}")
        _print_entries(_rows(entries))
    print(f"renewed: {len(found.renewed)}")
    for item in found.renewed:
        row = _rows([item.after])[0]
        fields = ", ".join(difference.name for difference in item.differences)
        print(f"  {row['kind']} {row['what']} on {row['device'] or 'any device'}: other {fields}")
    print(f"same: {found.same}, of which {found.rebuilt} hold other content")


def _rows(entries: Iterable[IndexEntry]) -> list[dict[str, Any]]:
    from clinfer.cache.coverage import describe

    return [{**describe(entry.record), "size": entry.size} for entry in entries]


def _print_entries(rows: list[dict[str, Any]]) -> None:
    shown = [{**row, "size": size_text(row["size"])} for row in rows]
    if shown:
        table(shown, list(shown[0]))


def _looked_at(path: Path) -> Pack:
    """A pack or cache of which nothing is used, so that nobody need be believed."""
    from clinfer.cache.pack import Pack
    from clinfer.cache.policy import Trust

    return Pack.open(path, Trust.waived())
