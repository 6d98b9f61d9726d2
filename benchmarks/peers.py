"""The same graph for DVC and Snakemake: the stages of `benchmarks.instant_stages`, each partition one trivial file.

A workspace is made as if all had run: the files are written, then each tool takes them in by its own command for
that (`dvc commit`, `snakemake --touch`), which costs it less than running every job.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.instant_stages import STAGES
from data_catalog.store.stage import Partition

SNAKEFILE = """\
STYLES = [line.strip() for line in open("styles.txt")]
BLOCKS = [f"{{number:04d}}" for number in range(int(open("blocks.txt").read()))]

rule dataset:
    input: {whole}
    output: "dataset/all"
    shell: "echo dataset > {{output}}"
"""


def partitions(styles: list[str], blocks: int) -> Iterator[tuple[str, list[str]]]:
    """(key, keys of its inputs) of every partition up to the dataset, upstream first."""
    built = {stage.name: stage for stage in STAGES[: 1 + [s.name for s in STAGES].index("dataset")]}
    of_stage = {name: stage.partitions(styles, list(range(blocks))) for name, stage in built.items()}
    for name, stage in built.items():
        for partition in of_stage[name]:
            inputs = [up.key for need in stage.needs for up in of_stage[need.stage] if _belongs(partition, up)]
            yield partition.key, inputs


def _belongs(partition: Partition, upstream: Partition) -> bool:
    """Whether two partitions agree on the dimensions that both have."""
    styles, blocks = (partition.style, upstream.style), (partition.block, upstream.block)
    return (None in styles or styles[0] == styles[1]) and (None in blocks or blocks[0] == blocks[1])


def write_files(folder: Path, styles: list[str], blocks: int) -> None:
    """Write the files of each partition's command, and the style files."""
    write_styles(folder, styles)
    for key, _ in partitions(styles, blocks):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{key}\n")


def write_styles(folder: Path, styles: list[str]) -> None:
    """The outside files: one a style, which its prompts partition reads."""
    (folder / "styles").mkdir(parents=True, exist_ok=True)
    for style in styles:
        path = folder / "styles" / f"{style}.txt"
        if not path.exists():
            path.write_text(f"turn the person into {style}\n")


def write_dvc(folder: Path, styles: list[str], blocks: int) -> None:
    """dvc.yaml with one stage a partition."""
    stages = {}
    for key, inputs in partitions(styles, blocks):
        source = [f"styles/{key.split('/')[1]}.txt"] if key.startswith("prompts/") else []
        name = key.replace("/", "-")
        stages[name] = {"cmd": f"echo {key} > {key}", "deps": inputs + source, "outs": [key]}
        (folder / key).parent.mkdir(parents=True, exist_ok=True)  # DVC's commands make no folders
    # JSON is YAML, and the quickest of it to read.
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))


def write_snakemake(folder: Path, styles: list[str], blocks: int) -> None:
    """A Snakefile with one rule a stage."""
    (folder / "styles.txt").write_text("".join(f"{style}\n" for style in styles))
    (folder / "blocks.txt").write_text(f"{blocks}\n")
    built = [stage for stage in STAGES if stage.name not in ("distill", "evaluate")]
    known = {"style": "STYLES", "block": "BLOCKS"}  # a first attempt has no name of its own
    split = {stage.name: set(stage.split_by) & known.keys() for stage in built}
    pattern = {name: "/".join([name, *(f"{{{by}}}" for by in known if by in over)]) for name, over in split.items()}
    text = SNAKEFILE.format(
        whole=", ".join(_expand(pattern[need.stage], split[need.stage], known) for need in built[-1].needs)
    )
    for stage in built[:-1]:
        needs = []
        for need in stage.needs:
            wider = split[need.stage] - split[stage.name]
            needs.append(_expand(pattern[need.stage], wider, known))
        if stage.name == "prompts":
            needs.append('"styles/{style}.txt"')
        given = f"    input: {', '.join(needs)}\n" if needs else ""
        text += f'\nrule {stage.name}:\n{given}    output: "{pattern[stage.name]}"\n'
        text += f'    shell: "echo {stage.name} > {{output}}"\n'
    (folder / "Snakefile").write_text(text)


def _expand(pattern: str, over: set[str], known: dict[str, str]) -> str:
    """A pattern over all values of some of its names; the others stay wildcards of the rule."""
    if not over:
        return f'"{pattern}"'
    kept = pattern
    for name in known:
        if name not in over:
            kept = kept.replace(f"{{{name}}}", f"{{{{{name}}}}}")
    return f'expand("{kept}", {", ".join(f"{name}={known[name]}" for name in sorted(over))})'


def prepare_dvc(folder: Path, binaries: Path, styles: list[str], blocks: int) -> None:
    """A DVC workspace in which everything is up to date."""
    write_files(folder, styles, blocks)
    write_dvc(folder, styles, blocks)
    for command in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"], ["commit", "-f", "-q"]):
        subprocess.run([str(binaries / "dvc"), *command], cwd=folder, check=True, capture_output=True)


def prepare_snakemake(folder: Path, binaries: Path, styles: list[str], blocks: int) -> None:
    """A Snakemake workspace in which everything is up to date."""
    write_files(folder, styles, blocks)
    write_snakemake(folder, styles, blocks)
    command = [str(binaries / "snakemake"), "--touch", "-c1", "-q"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@dataclass(frozen=True)
class Peer:
    """A tool, and how it is asked. `plan` says what would run, `build` runs it."""

    name: str
    plan: list[str]
    build: list[str]
    prepare: Callable[[Path, Path, list[str], int], None]
    write: Callable[[Path, list[str], int], None]


SNAKEMAKE = Peer("snakemake", ["snakemake", "-n"], ["snakemake", "-c2"], prepare_snakemake, write_snakemake)
DVC = Peer("dvc", ["dvc", "status"], ["dvc", "repro"], prepare_dvc, write_dvc)
