"""Tables of typed rows: a frozen dataclass says the columns, and rows are converted where a file is read or written.

@dataclass(frozen=True, kw_only=True)
class Face:
    name: Annotated[str, pa.string()]
    age: Annotated[int | None, pa.int32()] = None

FACES = Table("faces.parquet", Face)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


@dataclass(frozen=True)
class Table(Generic[Row]):
    """File of a partition's folder, with a dataclass for its rows.

    further: columns that are left out of some files, behind the others; their fields have defaults.
    """

    file: str
    kind: type[Row]
    further: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """Columns that every file has."""
        return pa.schema([field for field in schema_of(self.kind) if field.name not in self.further])

    def read(self, folder: Path) -> list[Row]:
        """All rows, in their order. A column that an older file lacks has its default."""
        table = pq.read_table(folder / self.file)
        absent = {field.name for field in fields(self.kind) if field.default is not MISSING} - {*table.column_names}
        names = [name for name in schema_of(self.kind).names if name not in absent]
        return [self.kind(**row) for row in table.select(names).to_pylist()]

    def write(self, folder: Path, rows: Iterable[Row], further: Sequence[str] = ()) -> None:
        """Write the rows, with some of the further columns."""
        pq.write_table(self.of(rows, further), folder / self.file)

    def of(self, rows: Iterable[Row], further: Sequence[str] = ()) -> pa.Table:
        """The rows as an Arrow table, with some of the further columns."""
        left_out = {*self.further} - {*further}
        schema = pa.schema([field for field in schema_of(self.kind) if field.name not in left_out])
        values = ({name: getattr(row, name) for name in schema.names} for row in rows)
        return pa.Table.from_pylist(list(values), schema=schema)


def schema_of(kind: type[Any]) -> pa.Schema:
    """Arrow names and types of a dataclass whose fields are `Annotated` with the latter."""
    hints = get_type_hints(kind, include_extras=True)
    return pa.schema([(field.name, hints[field.name].__metadata__[0]) for field in fields(kind)])
