"""Tables of typed rows: a frozen dataclass says the columns, and rows are converted where a file is read or written.

@dataclass(frozen=True, kw_only=True)
class Face:
    name: Annotated[str, pa.string()]
    age: Annotated[int | None, pa.int32()] = None

FACES = Table("faces.parquet", Face)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

Row = TypeVar("Row")


@dataclass(frozen=True)
class Table(Generic[Row]):
    """File of a partition's folder, with a dataclass for its rows.

    further: the last columns, those that are left out of some files; their fields have defaults.
    """

    file: str
    kind: type[Row]
    further: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """Columns that every file has."""
        return pa.schema([field for field in schema_of(self.kind) if field.name not in self.further])

    def read(self, folder: Path) -> list[Row]:
        """All rows, in their order."""
        table = pq.read_table(folder / self.file)
        names = [*self.schema.names, *(name for name in self.further if name in table.column_names)]
        return [self.kind(**row) for row in table.select(names).to_pylist()]

    def write(self, folder: Path, rows: Iterable[Row], further: bool = False) -> None:
        """Write the rows, with the further columns or without."""
        schema = schema_of(self.kind) if further else self.schema
        pq.write_table(to_table(rows, schema), folder / self.file)


def schema_of(kind: type[Any]) -> pa.Schema:
    """Arrow names and types of a dataclass whose fields are `Annotated` with the latter."""
    hints = get_type_hints(kind, include_extras=True)
    return pa.schema([(field.name, hints[field.name].__metadata__[0]) for field in fields(kind)])


def to_table(rows: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Table of dataclass rows, those of their fields that the schema names."""
    return pa.Table.from_pylist([{name: getattr(row, name) for name in schema.names} for row in rows], schema=schema)
