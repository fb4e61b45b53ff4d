"""How the tasks of a launch are dealt to its work-items."""

from __future__ import annotations

from clinfer_kernels.dims import Dim, minimum
from clinfer_kernels.spec import Target

MAX_GROUPS = 32768  # work-groups of a launch; PoCL takes fewer than 65536 per dimension
MAX_ITEMS = 65535  # work-items along a dimension


def group_items(tasks: Dim, work_group: int, target: Target) -> Dim:
    """Work-items of a launch in which a work-group has one task, or every so many'th.

    Where a device takes few work-items along a dimension, groups go on to further tasks.
    """
    if "short grids" in target.features:
        return minimum(tasks, MAX_ITEMS // work_group) * work_group
    return tasks * work_group


def each_task(target: Target) -> str:
    """The head of a block that runs once for each `task` of a work-group of `group_items`.

    A loop only where a group may have several: compilers compute before a loop what all its turns
    have in common, and keep it in registers throughout.
    """
    if "short grids" in target.features:
        return "for (int task = get_group_id(0); task < tasks; task += get_num_groups(0))"
    return "const int task = get_group_id(0);"


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
