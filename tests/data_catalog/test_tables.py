"""Typed rows: what is written is read again, and a file says the columns that its dataclass says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.samples.tables import Table


@dataclass(frozen=True, kw_only=True)
class Face:
    name: Annotated[str, pa.string()]
    age: Annotated[int | None, pa.int32()] = None
    camera: Annotated[list[float] | None, pa.list_(pa.float64())] = None
    licence: Annotated[str | None, pa.string()] = None


FACES = Table("faces.parquet", Face, further=("licence",))
ROWS = [Face(name="a", age=3, camera=[0.5, 1.5]), Face(name="b")]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    FACES.write(tmp_path, ROWS)
    assert FACES.read(tmp_path) == ROWS


def test_a_file_has_the_columns_and_types_of_its_dataclass_and_the_further_ones_where_asked(tmp_path: Path) -> None:
    FACES.write(tmp_path, ROWS)
    always = [("name", pa.string()), ("age", pa.int32()), ("camera", pa.list_(pa.float64()))]
    assert pq.read_schema(tmp_path / "faces.parquet").equals(pa.schema(always))
    FACES.write(tmp_path, [Face(name="a", licence="free")], further=["licence"])
    assert pq.read_schema(tmp_path / "faces.parquet").equals(pa.schema([*always, ("licence", pa.string())]))
    assert [row.licence for row in FACES.read(tmp_path)] == ["free"]


def test_a_column_that_a_file_lacks_has_its_default_and_one_without_default_is_missed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "faces.parquet")
    assert FACES.read(tmp_path) == [Face(name="a")]
    pq.write_table(pa.table({"age": [3]}), tmp_path / "faces.parquet")
    with pytest.raises(KeyError, match="name"):
        FACES.read(tmp_path)
