"""The folder of goldens that is run, and the line that sums it up.

    STILLROOM_GOLDEN=FOLDER .venv/bin/python -m pytest tests/parity -q

runs every golden file (*.npz) of a folder in the format of tests/parity/golden.py; without it, those of
tests/data/golden.
"""

import os
import re
from pathlib import Path

import pytest

from tests.parity.cases import golden_files

OWN_GOLDENS = Path(__file__).parents[1] / "data" / "golden"
ERROR = "parity error"  # property of a case's report: its largest relative error
# At full size a case takes many seconds; of these families one case, or a part of the network, runs always.
SLOW = re.compile(
    r"editing_e|live3d_encoder|eg3d_synthesis|discriminator|eg3d_sr|eg3d_backbone_1|triplane_renderer"
    r"|volume_renderer_[01]|live3d_sr_[02]"
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of each golden file."""
    if "golden_file" not in metafunc.fixturenames:
        return
    folder = Path(os.environ.get("STILLROOM_GOLDEN") or OWN_GOLDENS)
    files = golden_files(folder)
    if not files:
        raise pytest.UsageError(f"no golden files (*.npz) in {folder}; STILLROOM_GOLDEN names their folder")
    cases = [pytest.param(p, id=p.stem, marks=pytest.mark.slow if SLOW.match(p.stem) else ()) for p in files]
    metafunc.parametrize("golden_file", cases)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases ran and which one was farthest from its reference."""
    reports = [report for word in ("passed", "failed") for report in terminalreporter.stats.get(word, [])]
    errors = {report.nodeid: dict(report.user_properties).get(ERROR) for report in reports}
    ran = {node.split("[")[-1].rstrip("]"): error for node, error in errors.items() if error is not None}
    if ran:
        worst = max(ran, key=lambda case: ran[case])
        terminalreporter.write_line(f"parity: {len(ran)} cases, worst relative error {ran[worst]:.1e} ({worst})")
