"""Tables that pass between the stages, one a file: rows as frozen dataclasses, and the Parquet files they lie in."""
