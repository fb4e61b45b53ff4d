"""`Predictor`: a model as a function of tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clinfer.batch import rows
from clinfer.batch.assigned import assigned, device_name
from clinfer.batch.rows import Group
from clinfer.batch.tables import Kind, Table
from clinfer.errors import ClinferError, DeviceError, InputError, ModelError, listed
from clinfer.graph.model import Model

if TYPE_CHECKING:
    from clinfer.compiled import CompiledModel
    from clinfer.core import Core
    from clinfer.graph.model import Edit
    from clinfer.models import ModelLike
    from clinfer.ports import Port

ERROR = "clinfer_error"
"""The column that says why a row has no results; empty where it has."""
_ROWS = 64


class Recipe(NamedTuple):
    """A model as it goes to other processes: a path or the content, and what is made of it."""

    content: str | bytes
    edits: tuple[Edit, ...] = ()

    @staticmethod
    def of(model: ModelLike) -> Recipe:
        """Raises `InputError` for a model with extensions, which belong to a Core."""
        if isinstance(model, (str, os.PathLike)):
            return Recipe(str(Path(model).absolute()))
        if isinstance(model, bytes):
            return Recipe(model)
        if not isinstance(model, Model):
            return Recipe(model.SerializeToString())
        if model.extensions is not None:
            raise InputError(
                "a model read by a Core with extensions does not go to other processes: read it "
                "there, in a function of your own"
            )
        content = model.source
        return Recipe(
            content if isinstance(content, bytes) else str(content.absolute()), model.edits
        )

    def model(self, core: Core) -> str | bytes | Model:
        """The model, in the process where it runs."""
        if not self.edits:
            return self.content
        found = core.read_model(self.content)
        found.redo(self.edits)
        return found

    def digest(self) -> str:
        """Names the content and what is made of it."""
        from clinfer.models import Models

        read = Models().read(self.content)
        read.redo(self.edits)
        source = Models().digested(read)
        return " + ".join([str(source.digest), *filter(None, [source.shapes])])


def require_count(argument: str, value: Any) -> None:
    """Raises `InputError` for what is no number of 1 or more."""
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{argument}: expected a number of 1 or more, found {value!r}")


class Predictor:
    """Adds a model's outputs to batches of rows; made for Ray Data:

        dataset.map_batches(Predictor, fn_constructor_args=("model.onnx",), concurrency=2)

    A batch is a dict of arrays (Ray's format "numpy"), a `pyarrow.Table` or a pandas DataFrame;
    what comes back is of the same kind, with a column for each output and `clinfer_error`, which
    says of a row that cannot be an input why, and is empty for others. The model is loaded with the
    first batch: one per actor, from the cache, on the device that Ray or Dask has assigned (else
    CPU, or `device`) and with as many cores.
    """

    def __init__(
        self,
        model: ModelLike,
        *,
        columns: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | Sequence[str] | None = None,
        device: str | None = None,
        config: Mapping[str, Any] | None = None,
        batch_rows: int = _ROWS,
        keep: bool = True,
    ) -> None:
        """`columns`: inputs to columns, where the names differ. `outputs`: those that are wanted,
        or outputs to names of columns. `config`: properties, CACHE_DIR among them. `batch_rows`:
        rows of one inference at most. `keep`: whether the batch's own columns come back too.
        """
        require_count("batch_rows", batch_rows)
        if isinstance(outputs, str):
            raise InputError(f"outputs: expected names in a list; found {outputs!r}")
        self._recipe = Recipe.of(model)
        self._columns = dict(columns or {})
        self._outputs = outputs
        self._device = device
        self._config = dict(config or {})
        self._rows = batch_rows
        self._keep = keep
        self._is_together = True  # as models are that have a dimension for rows
        self._row_names: set[str] = set()  # of the inputs' first dimensions, once they are known
        self._compiled: CompiledModel | None = None
        self._loading = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Another process loads the model for itself, on the device it is assigned."""
        return {**self.__dict__, "_compiled": None, "_loading": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_loading": Lock()}

    def described(self) -> dict[str, Any]:
        """What decides the results, for a record of them: no paths, no device."""
        outputs = self._outputs
        if outputs is not None:
            outputs = dict(outputs) if isinstance(outputs, Mapping) else list(outputs)
        return {
            "model": self._recipe.digest(),
            "columns": self._columns,
            "outputs": outputs,
            "keep": self._keep,
        }

    def empty(self, frame: Any) -> Any:
        """What comes of an empty DataFrame; reads the model, and compiles nothing."""
        from clinfer.core import Core

        core = Core()
        given = self._recipe.model(core)
        model = given if isinstance(given, Model) else core.read_model(given)
        rows.columns_of(model.inputs, self._columns, [str(name) for name in frame.columns])
        table = Table.of(frame)
        wanted = self._wanted(model)
        self._row_names = rows.row_names(model.inputs)
        types = {column: self._kind(model.output(name)) for name, column in wanted.items()}
        nothing: dict[str, Any] = {column: [] for column in types}
        return table.with_columns(nothing, types, {ERROR: []}, self._keep)

    @property
    def compiled(self) -> CompiledModel:
        """The model; loaded now where it is not yet."""
        with self._loading:
            if self._compiled is None:
                self._compiled = self._load()
            return self._compiled

    def _load(self) -> CompiledModel:
        from clinfer.core import Core
        from clinfer.properties import INFERENCE_NUM_THREADS

        core, place = Core(), assigned()
        gpus = sum(name.startswith("GPU") for name in core.available_devices)
        device = self._device or device_name(place.gpus, gpus)
        config = dict(self._config)
        if place.cores and device == "CPU":
            config.setdefault(INFERENCE_NUM_THREADS, place.cores)
        return core.compile_model(self._recipe.model(core), device, config)

    def __call__(self, batch: Any) -> Any:
        """The batch with its results.

        Raises `InputError` where a column is missing, `DeviceError` where the device fails.
        """
        return self.of(Table.of(batch))

    def of(self, table: Table) -> Any:
        """As a call, for a table of `clinfer.batch.tables`."""
        model = self.compiled
        self._row_names = rows.row_names(model.inputs)
        names = rows.columns_of(model.inputs, self._columns, table.names)
        values = {name: table.column(column) for name, column in names.items()}
        errors: dict[int, str] = {}
        results: list[dict[str, Any] | None] = [None] * table.count
        for group in rows.groups(model.inputs, values, table.count, errors):
            self._infer(group, results, errors)
        wanted = self._wanted(model)
        found = {
            column: [None if row is None else row[name] for row in results]
            for name, column in wanted.items()
        }
        types = {column: self._kind(model.output(name)) for name, column in wanted.items()}
        reasons = [errors.get(row, "") for row in range(table.count)]
        return table.with_columns(found, types, {ERROR: reasons}, self._keep)

    def _wanted(self, model: CompiledModel | Model) -> dict[str, str]:
        """The outputs that are wanted, each with the name of its column."""
        known = [port.name for port in model.outputs]
        given = known if self._outputs is None else self._outputs
        wanted = dict(given) if isinstance(given, Mapping) else {name: name for name in given}
        strange = [name for name in wanted if name not in known]
        if strange:
            raise InputError(
                f"outputs: the model has no output {listed(map(repr, strange))}; it has "
                f"{listed(map(repr, known))}"
            )
        columns = [*wanted.values(), ERROR]
        if len({*columns}) < len(columns):
            raise InputError(
                f"outputs: expected a column of its own for each, and none named '{ERROR}'; found "
                f"{listed(map(repr, wanted.values()))}"
            )
        return wanted

    def _kind(self, port: Port) -> Kind:
        """What a row has of an output."""
        sizes = [size if isinstance(size, int) else 0 for size in port.shape or ()]
        return Kind(port.dtype, tuple(sizes[1:] if self._has_rows(port) else sizes))

    def _has_rows(self, port: Port) -> bool:
        """Whether an output's first dimension is that of the rows.

        Where a row is an inference, what is no dimension of one row belongs to the result.
        """
        if self._rows > 1 or not self._is_together:
            return self._is_together
        first = [*port.shape[:1]] if port.shape else []
        return bool(first) and first[0] in {1, None, *self._row_names}

    def _infer(self, group: Group, results: list[Any], errors: dict[int, str]) -> None:
        """Runs rows of one shape: together where the model has a dimension for that."""
        ports = self.compiled.inputs
        ranks = {name: np.ndim(values[0]) for name, values in group.values.items()}
        try:
            self._is_together = rows.takes_rows_together(ports, ranks)
        except InputError as error:
            errors.update(dict.fromkeys(group.rows, str(error)))
            return
        if self._is_together:
            for part in rows.parts(group, rows.fixed_rows(ports) or self._rows):
                self._together(part, results, errors)
        else:
            for part in rows.parts(group, 1):
                self._alone(part, results, errors)

    def _together(self, part: Group, results: list[Any], errors: dict[int, str]) -> None:
        """One inference; where its inputs are refused, halves find the rows that are at fault."""
        fixed = rows.fixed_rows(self.compiled.inputs)
        count = len(part.rows)
        more = max(fixed - count, 0)  # a fixed number of rows is filled up with the last one
        try:
            found = self.compiled(part.stacked(more)).to_dict()
        except DeviceError:
            raise
        except ClinferError as error:
            if count == 1:
                errors[part.rows[0]] = str(error)
                return
            for half in rows.parts(part, -(-count // 2)):
                self._together(half, results, errors)
            return
        whole = {port.name for port in self.compiled.outputs if not self._has_rows(port)}
        self._require_rows({n: v for n, v in found.items() if n not in whole}, count + more)
        for place, row in enumerate(part.rows):
            results[row] = {n: v if n in whole else v[place] for n, v in found.items()}

    def _require_rows(self, found: Mapping[str, Any], count: int) -> None:
        """Raises `ModelError` for what has no row for each input, or only by chance."""
        fixed = rows.fixed_rows(self.compiled.inputs)
        for name, value in found.items():
            first = [*(self.compiled.output(name).shape or ())[:1]]
            by_chance = bool(first) and isinstance(first[0], int) and first[0] not in (1, fixed)
            if by_chance or np.ndim(value) == 0 or len(value) != count:
                advice = "; use batch_rows=1" if self._rows > 1 else ""
                raise ModelError(
                    f"output '{name}' of shape {list(np.shape(value))} has no row for each of "
                    f"{count} inputs: the model does not take rows together{advice}"
                )

    def _alone(self, part: Group, results: list[Any], errors: dict[int, str]) -> None:
        try:
            found = self.compiled({name: values[0] for name, values in part.values.items()})
        except DeviceError:
            raise
        except ClinferError as error:
            errors[part.rows[0]] = str(error)
        else:
            results[part.rows[0]] = found.to_dict()
