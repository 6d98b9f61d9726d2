"""Two lines after Ctrl-C or another signal: what is kept, and what to type."""

import shlex

MADE = "finished partitions are kept"
LOOKS = ("plan", "why", "status", "students", "datasets", "styles", "diff", "verify", "doctor")
KEPT = {
    **dict.fromkeys(LOOKS, "nothing was changed"),
    "distill": f"{MADE}, and the training up to its last checkpoint",
    "edit": "the pictures that were written are kept",
    "edit-video": "the frames that were edited are kept",
    "align": "the photographs that were aligned are kept",
    "models": "what was fetched is kept",
    "serve": "the page is closed",
}


def told(arguments: list[str]) -> str:
    """Return what is kept of the interrupted command, and the command that goes on."""
    command = next((each for each in arguments if not each.startswith("-")), "")
    return f"{KEPT.get(command, MADE)}\ngo on with: {shlex.join(['stillroom', *arguments])}"
