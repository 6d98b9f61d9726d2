"""Record of a partition: its content and its inputs. A partition with a record is whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data_catalog.store.fingerprint import digest_json

MORE = "more"


@dataclass
class Summary:
    """Summary of a partition by the stage that made it.

    `rejected` counts rejected samples by reason. `parts` maps a block ("0003", "0003-a1") to the digest of the
    partition's part for that block, for downstream stages with `Need(part=True)`. Under `MORE` it holds the attempts
    that must be made before the partition is final, separated by spaces.
    """

    samples: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)  # of files that were hashed while they were written


class FileEntry(BaseModel):
    """Size and content of one file of a partition."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    sha256: str


class Record(BaseModel):
    """The contents of `record.json`, written last into a partition's folder."""

    model_config = ConfigDict(extra="forbid")

    partition: str
    stage: str
    version: int
    fingerprint: str
    fingerprint_inputs: dict[str, Any]
    digest: str
    files: dict[str, FileEntry]
    samples: int = 0
    rejected: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    parts: dict[str, str] = Field(default_factory=dict)
    seconds: float = 0.0
    source_digest: str = ""
    accepted: list[str] = Field(default_factory=list)  # source digests that a person declared equivalent
    device: str = "cpu"
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seal: str = ""  # digest of all other fields; a record edited after the fact is rejected

    def sealing(self) -> str:
        """Return the seal for these fields."""
        return digest_json(self.model_dump(mode="json", exclude={"seal"}))

    @property
    def honest(self) -> bool:
        """Whether the record is as it was written. A record without a seal counts as honest."""
        return self.seal in ("", self.sealing())

    @property
    def summary(self) -> Summary:
        return Summary(self.samples, dict(self.rejected), dict(self.metrics), dict(self.parts))

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files.values())
