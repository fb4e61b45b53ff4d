"""Who else could change a file: whoever can write a cache can run code in its readers.

The rules are those of OpenSSH for its key files: every directory from the root down belongs to this
user or to root and is not writable by others. A directory with the sticky bit (/tmp) may stand
above the cache, because nobody can rename or remove somebody else's file there. A group may write
if it is root's, or the user's private group (the group named like the user, without other members),
which a umask of 002 gives to new files.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from functools import lru_cache
from pathlib import Path


def distrust(status: os.stat_result, *, sticky: bool = False) -> str | None:
    """Why a file or directory cannot be trusted, as the end of a sentence; None where it can.

    `sticky`: the sticky bit makes up for being writable. Windows: always None.
    """
    if sys.platform == "win32":
        return None
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to user {status.st_uid}"
    if sticky and status.st_mode & stat.S_ISVTX:
        return None
    if status.st_mode & stat.S_IWOTH:
        return "can be written by every user"
    if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid):
        return f"can be written by group {status.st_gid}"
    return None


def distrust_directory(directory: Path) -> str | None:
    """Why a cache directory cannot be trusted, as a sentence that says what to do; None if it can.

    The whole path is checked with links resolved; a path that does not exist yet is checked as far
    as it does. Raises OSError where the path cannot be followed.
    """
    if sys.platform == "win32":
        return None
    try:
        resolved = directory.resolve()
    except RuntimeError as error:  # a loop of links, before Python 3.13
        raise OSError(errno.ELOOP, str(error)) from None
    for level, folder in enumerate((resolved, *resolved.parents)):
        try:
            status = folder.lstat()
        except FileNotFoundError:
            continue
        doubt = distrust(status, sticky=level > 0)
        if doubt is not None:
            where = "" if level == 0 else f"its parent '{folder}' "
            return (
                f"the cache directory '{directory}' is not used: {where}{doubt}. Make it private "
                "(chmod go-w), choose another directory, or set CLINFER_CACHE_ALLOW_SHARED=1 if "
                "everyone who can write there may run code as you"
            )
    return None


def closed_to_this_user(path: Path) -> str | None:
    """Why this user cannot read a file or folder, and what to do; None where modes allow it.

    The first on the way from the root that lets this user not in decides; one that is not there,
    or a file where a folder has to be, ends the way.
    """
    if sys.platform == "win32":
        return None
    for place in (*reversed(path.parents), path):
        try:
            status = place.stat()
        except OSError:
            return None
        if place in path.parents and not stat.S_ISDIR(status.st_mode):
            return None
        wanted = os.R_OK | (os.X_OK if stat.S_ISDIR(status.st_mode) else 0)
        if not os.access(place, os.X_OK if place in path.parents else wanted):
            return (
                f"'{place}' belongs to user {status.st_uid} and has mode "
                f"{stat.S_IMODE(status.st_mode):04o}, so user {os.geteuid()} cannot read it and "
                "compiles anew at each start: fill the cache as the user who runs the service, or "
                "let its owner open it for reading (chmod -R a+rX, or CLINFER_CACHE_READABLE=1 "
                "when it is filled)"
            )
    return None


@lru_cache(maxsize=64)
def _is_private(gid: int) -> bool:
    if sys.platform == "win32" or gid == 0:
        return True
    import grp
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    alone = set(group.gr_mem) <= {user.pw_name}
    return alone and group.gr_name == user.pw_name and user.pw_gid == gid
