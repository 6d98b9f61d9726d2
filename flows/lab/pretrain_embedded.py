"""Flow pretrain-embedded: trains the shipped networks on the procedural world and examines them together."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Annotated, Any, Self

from data_catalog.config.errors import UserError
from data_catalog.workspace import Workspace
from flows.run.declare import flow
from flows.run.form import Overrides, Profile, RunName, RunNote, RunTags, listed, shown
from flows.run.lifecycle import tracked
from flows.track.labels import labelled
from flows.track.mlflow_runs import Tracker
from flows.track.prefect_pages import log_plainly
from tasks.lab.pretraining import recipes
from tasks.lab.pretraining.card import describe_bars, write_card
from tasks.lab.pretraining.exam.exam import EXAM, read_exam, take_exam
from tasks.lab.pretraining.report import REPORT
from tasks.processes import end_with_parent
from tasks.progress import Progress

LANES = 2  # one-thread processes side by side learn faster than one process with two threads
POLL_SECONDS = 5.0
INTO = "Folder for other weights, used with STILLROOM_MODELS=<folder>/models.yaml; empty: the project's own."


@flow(name="pretrain-embedded")
def pretrain_embedded(
    profile: Profile = "demo",
    overrides: Overrides = None,
    networks: Annotated[list[str] | str | None, listed("Empty: all.", enum=[*recipes.NEEDS])] = None,
    steps: Annotated[int | None, shown("integer", "Training steps; empty: those of each recipe.")] = None,
    into: Annotated[str | None, shown("string", INTO)] = None,
    exam_only: Annotated[bool, shown("boolean", "Train nothing.")] = False,
    name: RunName = None,
    note: RunNote = None,
    tags: RunTags = None,
) -> dict[str, Any]:
    """Train the embedded networks (all, or those named) and examine them: weights, digests, card, report.

    Killed, it continues from the last checkpoints. Delete data/pretrain/<network> to train one again from nothing.
    """
    log_plainly()
    chosen = choose([networks] if isinstance(networks, str) else networks)
    trained = [] if exam_only else chosen
    examined = [
        name for name in recipes.NEEDS if name in chosen or any(name in recipes.JUDGED.get(n, ()) for n in trained)
    ]
    workspace = Workspace.open(profile, overrides)
    place = Place.open(workspace.root / "pretrain", into)
    with labelled(name, note, tags), tracked(workspace, "pretrain-embedded") as (tracker, _):
        with _one_thread_processes() as pool, killed_on_error():
            _render(pool, place.pictures, trained, examined)
            _train(pool, place, trained, steps, tracker)
        digests = recipes.write_digests(place.weights)
        numbers = _examine(place, examined, tracker)
        for path in (write_card(place.work, place.weights), place.work / REPORT, place.work / EXAM):
            tracker.file(path)
    marks = read_exam(place.work)
    return {
        "bars": describe_bars({name: {"exam": marks[name]} for name in examined}),
        "exam": numbers,
        "digests": digests,
        "report": str(place.work / REPORT),
        "mlflow_run_id": tracker.run_id,
    }


def choose(networks: list[str] | None) -> list[str]:
    """Return the named networks in the order of the recipes; all if none is named."""
    unknown = sorted(set(networks or []) - set(recipes.NEEDS))
    if unknown:
        raise UserError("no such embedded network", found=", ".join(unknown), expected=", ".join(recipes.NEEDS))
    return [name for name in recipes.NEEDS if not networks or name in networks]


@dataclass(frozen=True)
class Place:
    """Folders of pictures, checkpoints and weights."""

    pictures: Path
    work: Path
    weights: Path

    @classmethod
    def open(cls, pictures: Path, into: str | None) -> Self:
        """Open the project's own weights; or those in `into`, which start as a copy."""
        if into is None:
            return cls(pictures, pictures, recipes.WEIGHTS)
        weights = Path(into).expanduser().resolve()
        recipes.copy_weights(weights)
        return cls(pictures, weights / "training", weights)


def _one_thread_processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(LANES, mp_context=get_context("spawn"), initializer=end_with_parent)


@contextmanager
def killed_on_error() -> Iterator[None]:
    """Kill the processes that this one started if an error, Ctrl-C or a signal ends the block.

    A pool would wait for their present work, for hours.
    """
    try:
        yield
    except BaseException:
        for child in active_children():
            child.kill()
        raise


def _render(pool: ProcessPoolExecutor, pictures: Path, trained: list[str], examined: list[str]) -> None:
    """Render missing pictures; only training needs the training people, and only identity the faces."""
    from tasks.lab.pretraining.pictures import TRAINING_SEEDS, VALIDATION_SEEDS

    blocks = [("pictures", VALIDATION_SEEDS, recipes.HELD_OUT)]
    if "identity" in examined:
        blocks.append(("faces", VALIDATION_SEEDS, recipes.HELD_OUT))
    learned_from = {"faces" if name == "identity" else "pictures" for name in trained}
    for kind in sorted(learned_from):
        starts = range(TRAINING_SEEDS, TRAINING_SEEDS + recipes.PEOPLE, recipes.BLOCK)
        blocks += [(kind, start, recipes.BLOCK) for start in starts]
    for waiting in [pool.submit(recipes.render, pictures, *block) for block in blocks]:
        waiting.result()


def _train(pool: ProcessPoolExecutor, place: Place, chosen: list[str], steps: int | None, tracker: Tracker) -> None:
    """Train on all lanes; the curves are sent to MLflow while they grow."""
    with ThreadPoolExecutor(LANES) as watchers, killed_on_error():
        in_turn(chosen, lambda name: watchers.submit(_train_one, pool, place, name, steps, tracker))


def in_turn(chosen: list[str], start: Callable[[str], Future[None]]) -> None:
    """Start each network once those of `chosen` that it needs are trained and a lane is free, in the order given."""
    running: dict[Future[None], str] = {}
    trained: set[str] = set()
    waiting = list(chosen)
    while waiting or running:
        ready = [name for name in waiting if trained.issuperset(set(recipes.NEEDS[name]) & set(chosen))]
        for name in ready[: LANES - len(running)]:
            waiting.remove(name)
            running[start(name)] = name
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            future.result()
            trained.add(running.pop(future))


def _train_one(pool: ProcessPoolExecutor, place: Place, name: str, steps: int | None, tracker: Tracker) -> None:
    with tracker.stage(name) as log:
        future = pool.submit(recipes.train_network, name, place.pictures, steps, place.weights, place.work)
        told = 0
        while True:
            finished = wait([future], timeout=POLL_SECONDS).done
            points = recipes.read_curve(place.work, name)
            for point in points[told:]:
                log.hear(Progress(int(point.pop("step")), metrics=point))
            told = len(points)
            if finished:
                break
        future.result()


def _examine(place: Place, names: list[str], tracker: Tracker) -> dict[str, dict[str, float]]:
    """Examine all networks in a fresh process, whose zoo reads the present weights."""
    with tracker.stage("exam") as log, _one_thread_processes() as pool, killed_on_error():
        numbers = pool.submit(take_exam, names, place.pictures, place.weights, place.work).result()
        for name, values in numbers.items():
            tracker.metrics(log.run_id, {f"{name}.{key}": value for key, value in values.items()})
    return numbers
