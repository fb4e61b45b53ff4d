"""The contract of groups: compiled models of one model, which answer its requests together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.lowering.plan import Plan
    from clinfer.plugins.base import Session


class Group(ABC):
    """Models on devices. Safe to use from several threads."""

    @property
    @abstractmethod
    def main(self) -> CompiledModel:
        """The one that stands for all where one is asked for: its device, plan and properties."""

    @property
    @abstractmethod
    def members(self) -> Sequence[CompiledModel]:
        """All that are there now."""

    @property
    def plans(self) -> Sequence[Plan]:
        """What is done for one inference, in order."""
        return [self.main.plan]

    @property
    def signature(self) -> Plan:
        """The plan that has the whole model's inputs and outputs."""
        return self.main.plan

    @abstractmethod
    def session(self) -> Session:
        """For a request."""

    def requests(self) -> int:
        """How many requests keep the devices busy."""
        return self.main._streams()

    def execution_devices(self) -> list[str]:
        """What EXECUTION_DEVICES reports."""
        return [model.device.info.name for model in self.members]

    def readable(self) -> Mapping[str, Callable[[], Any]]:
        """What else can be read of the compiled model."""
        return {}
