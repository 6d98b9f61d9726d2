"""Names of flow runs on Prefect's pages: a user's own is kept, a random one gives way to what the run does."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
from coolname.data import config as wordlists
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

Wordlists = dict[str, dict[str, list[str]]]

MOST_CHARS = 90  # of a name: one line of the run's page
DIGEST_CHARS = 8
RANDOM_WORDS = frozenset(word for each in cast(Wordlists, wordlists).values() for word in each.get("words", ()))
GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|"
    "psi|omega"
)
OF_THE_FORM = re.compile(rf"({GREEK})\d{{1,3}}(-[a-z]+)+")  # the form for a run fills in omicron532-arae


def is_random(name: str) -> bool:
    """Whether Prefect's server or its form drew this name: stalwart-bat, omicron532-arae."""
    words = name.split("-")
    return OF_THE_FORM.fullmatch(name) is not None or (len(words) == 2 and RANDOM_WORDS.issuperset(words))


def name_run() -> str:
    """Return the name of the current flow run: a user's own, else profile, settings and parameters, and its start."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return _describe(context) if is_random(context.flow_run.name) else context.flow_run.name


def name_products(digests: Mapping[str, str]) -> None:
    """Add what the current flow run made to its name, unless the name is a user's own."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.name != _describe(context):
        return
    named = context.parameters or {}
    made = [f"{kind} {digest[:DIGEST_CHARS]}" for kind, digest in digests.items() if not named.get(kind)]
    with get_client(sync_client=True) as client:
        try:
            client.update_flow_run(context.flow_run.id, name=_describe(context, made))
        except httpx.HTTPError:
            return  # the server is gone; the run goes on


def _describe(context: FlowRunContext, made: Sequence[str] = ()) -> str:
    """Say profile and parameters, what was made, the changed settings as far as there is room, and the start."""
    assert context.flow is not None
    assert context.flow_run is not None
    given = dict(context.parameters or {})
    settings, start = given.pop("overrides", None) or [], context.flow_run.expected_start_time
    first, last = (
        _tell(given, context.flow.parameters.properties),
        f"{start.astimezone():%d %b %H:%M:%S}" if start else "",
    )
    fitting, room = [], MOST_CHARS - len(", ".join([first, *made, last]))
    for setting in settings:
        room -= len(setting) + 1
        if room < 0:
            break
        fitting.append(setting)
    more = [f"+{len(settings) - len(fitting)}"] if len(fitting) < len(settings) else []
    return ", ".join(filter(None, [first, *made, " ".join([*fitting, *more]), last]))


def _tell(parameters: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Say the profile, and each other parameter that is not left at its default."""
    words = [str(parameters.get("profile", ""))]
    for name, value in parameters.items():
        if name in ("profile", "note", "tags") or not value or value == schema.get(name, {}).get("default"):
            continue
        texts = [_shorten(str(each)) for each in (value if isinstance(value, list) else [value])]
        words.append(name if value is True else f"{name}={','.join(texts)}"[: MOST_CHARS // 2])
    return " ".join(filter(None, words))


def _shorten(text: str) -> str:
    """Return the name of a file, and the beginning of a digest."""
    text = Path(text).name if text.startswith("/") else text
    return text[:DIGEST_CHARS] if re.fullmatch("[0-9a-f]{64}", text) else text
