"""How the tasks of a launch are dealt to its work-items."""

from __future__ import annotations

MAX_GROUPS = 32768  # work-groups of a launch; PoCL takes fewer than 65536 per dimension
MAX_ITEMS = 65535  # work-items along a dimension


def neighbours() -> dict[str, str]:
    """Bounds of a loop over `tasks` in which neighbouring work-items have neighbouring tasks."""
    return {
        "first": "(int)get_global_id(0)",
        "end": "tasks",
        "stride": "(int)get_global_size(0)",
    }


def shares() -> dict[str, str]:
    """Bounds of a loop over `tasks` in which each work-item has consecutive tasks."""
    share = "(long)tasks * (get_global_id(0){}) / get_global_size(0)"
    return {"first": share.format(""), "end": share.format(" + 1"), "stride": "1"}
