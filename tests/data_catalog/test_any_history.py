"""After any history of edits and damage, a build runs what it should and ends where a build from scratch ends.

The model below knows no fingerprints: it compares the values themselves that a partition is made from.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from data_catalog.care.verify import note_damage, verify
from data_catalog.products.snapshot import open_snapshot
from data_catalog.store.catalog import INDEX
from data_catalog.store.store import RECORD
from tests.worlds.instant import World, keep

STYLES = ("zombie", "red-hair", "neon")
SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_scratch: dict[str, tuple[str, dict[str, str]]] = {}  # what a build from scratch gives, by the state of the world


class Model:
    """Model of a store: content and inputs of each partition as plain values; `made` is the store's memory."""

    def __init__(self) -> None:
        self.seed, self.steps, self.quantile, self.colour = 0, 20, 0.05, "grey"
        self.styles = {style: f"Turn it into {style}" for style in STYLES[:2]}
        self.faces = {block: f"ann{block} bob{block} cyd{block}" for block in range(2)}
        self.made: dict[str, dict[str, str]] = {}  # partition -> what it was made from -> by which code
        self.now: dict[str, str] = {}  # partition -> what the present one was made from

    def build(self) -> list[str]:
        """Return the partitions that a build has to make now; they count as made from here on."""
        ran: list[str] = []

        def need(key: str, *values: Any, code: str = "") -> None:
            intent = json.dumps(values)
            if self.made.setdefault(key, {}).get(intent) != code:
                ran.append(key)
                self.made[key][intent] = code
            self.now[key] = intent

        self.now = {}
        portraits = {
            block: [f"portrait of {name} {self.seed}" for name in names.split()] for block, names in self.faces.items()
        }
        for block, names in sorted(self.faces.items()):
            need(f"portraits/{block:04d}", self.seed, names)
        edits, kept = {}, {}
        for style, prompt in sorted(self.styles.items()):
            for block, lines in sorted(portraits.items()):
                edits[style, block] = [f"{line}, {prompt}, {self.steps}, {self.colour}" for line in lines]
                need(f"edit/{style}/{block:04d}", lines, prompt, self.steps, code=self.colour)
        for style in sorted(self.styles):
            mine = {block: edits[style, block] for block in sorted(self.faces)}
            need(f"select/{style}", self.quantile, mine)
            kept |= {(style, block): keep(lines, block, self.quantile) for block, lines in mine.items()}
        for (style, block), lines in sorted(kept.items()):
            need(f"teach/{style}/{block:04d}", edits[style, block], lines)
        taught = [[style, block, lines] for (style, block), lines in sorted(kept.items())]
        need("dataset/all", taught)
        need("distill/all", [line for _, _, lines in taught for line in lines])
        return ran

    def forget(self, key: str) -> None:
        """The present one is damaged."""
        del self.made[key][self.now[key]]


class AnyHistory(RuleBasedStateMachine):
    """Edits and damage in any order, with builds in between."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory(dir=SHARED)
        self.world, self.model = World(Path(self.folder.name) / "world"), Model()
        self.world.set_code("grey")
        self.untouched = False
        self.build()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(seed=st.integers(0, 1), steps=st.integers(19, 21), quantile=st.sampled_from([0.05, 0.06, 0.2]))
    def change_settings(self, seed: int, steps: int, quantile: float) -> None:
        self.untouched = False
        self.model.seed, self.model.steps, self.model.quantile = seed, steps, quantile
        self.world.changes = {
            "portraits": {"seed": seed},
            "edit": {"steps": steps},
            "select": {"quantile": quantile},
        }

    @rule(style=st.sampled_from(STYLES), prompt=st.sampled_from(["", "Turn it into {}", "Make it {}"]))
    def change_style(self, style: str, prompt: str) -> None:
        """Add it, edit it, bring it back, or remove it (never the last one)."""
        self.untouched = False
        if prompt:
            self.model.styles[style] = prompt.format(style)
            self.world.set_style(style, prompt.format(style))
        elif style in self.model.styles and len(self.model.styles) > 1:
            del self.model.styles[style]
            (self.world.place / "styles" / f"{style}.txt").unlink()

    @rule(block=st.integers(0, 1), names=st.sampled_from(["ann bob", "ann bob cyd", "dan"]))
    def change_portraits(self, block: int, names: str) -> None:
        self.untouched = False
        self.model.faces[block] = names
        self.world.set_faces(block, names)

    @rule(colour=st.sampled_from(["grey", "red"]), comment=st.sampled_from(["", "a comment", "another"]))
    def change_code(self, colour: str, comment: str) -> None:
        """Only the colour is code that counts."""
        self.untouched = False
        self.model.colour = colour
        self.world.set_code(colour, comment)

    @precondition(lambda self: self.untouched)
    @rule(data=st.data(), kind=st.sampled_from(["truncate", "overwrite", "rot", "delete", "record", "lie"]))
    def damage(self, data: st.DataObject, kind: str) -> None:
        """Damage one partition of the present plan; `verify` first finds damage that names and times do not show."""
        key = data.draw(st.sampled_from(sorted(self.model.now)))
        folder = self.world.folder(key)
        _spoil(folder, kind)
        if kind == "rot":
            seen = verify(self.world.root)
            assert key in seen.partitions
            note_damage(self.world.root, seen.damaged)
        self.model.forget(key)
        self.untouched = False

    @rule()
    def lose_index(self) -> None:
        (self.world.root / INDEX).unlink(missing_ok=True)

    @rule()
    def build(self) -> None:
        expected = self.model.build()
        assert sorted(self.world.build()) == sorted(expected)
        self.untouched = True
        digests = self.world.digests()
        assert digests.keys() == self.model.now.keys()
        assert (open_snapshot(self.world.root).digest, digests) == from_scratch(self.world, self.model)


def _spoil(folder: Path, kind: str) -> None:
    path = next(path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD)
    status = path.stat()
    if kind == "truncate":
        os.truncate(path, status.st_size - 1)
    elif kind in ("overwrite", "rot"):
        path.write_bytes(b"#" + path.read_bytes()[1:])
        os.utime(path, ns=(0, status.st_mtime_ns if kind == "rot" else 1))
    elif kind == "delete":
        path.unlink()
    elif kind == "record":
        (folder / RECORD).unlink()
    else:
        record = (folder / RECORD).read_text()
        (folder / RECORD).write_text(record.replace('"samples": ', '"samples": 1'))


def from_scratch(world: World, model: Model) -> tuple[str, dict[str, str]]:
    """(digest of the snapshot, of every partition) of the same world on another path without a history."""
    state = json.dumps(
        [model.seed, model.steps, model.quantile, model.colour, model.styles, model.faces], sort_keys=True
    )
    if state not in _scratch:
        with tempfile.TemporaryDirectory(dir=SHARED) as folder:
            fresh = World(Path(folder) / "fresh", styles=())
            fresh.changes = world.changes
            fresh.set_code(model.colour)
            for style, prompt in model.styles.items():
                fresh.set_style(style, prompt)
            for block, names in model.faces.items():
                fresh.set_faces(block, names)
            fresh.build()
            _scratch[state] = open_snapshot(fresh.root).digest, fresh.digests()
    return _scratch[state]


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(
    max_examples=40,
    stateful_step_count=14,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
