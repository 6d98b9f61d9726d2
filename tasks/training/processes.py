"""Training by several processes of this machine, a GPU each: they share batches, and `accelerate` sums their gradients.

Each process loads the networks and takes its share of a batch; the first one writes checkpoints, curve, pictures and
the student. Random numbers belong to samples, not to processes: any number of processes trains the same student, up to
rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import Empty
from typing import TYPE_CHECKING, Any

import torch.multiprocessing as processes

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from tasks.processes import free_port
from tasks.progress import Progress, listening, report

if TYPE_CHECKING:
    from models.three_d.student import Student

POLL_S = 0.5


def train_together(work: Work, train_one: Callable[[Work], Summary]) -> Summary:
    """Run `train_one`, a function of a module, in as many processes as `count_processes` says, on the same work.

    Returns what the first one returned. If one fails the others are ended, and its traceback is in the error.
    """
    count = count_processes(work.settings)
    check_devices(work.settings, count)
    context = processes.get_context("spawn")  # CUDA does not survive a fork
    messages = context.Queue()
    running: Any = processes.start_processes(
        _work_as, (count, free_port(), work, train_one, messages), nprocs=count, join=False, start_method="spawn"
    )
    summary: Summary | None = None
    ended = False
    try:
        while not ended or summary is None:
            ended = running.join(POLL_S)
            summary = _hear(messages) or summary
            if ended and summary is None:
                summary = _hear(messages, POLL_S)
                assert summary is not None, "the first process ended without a summary"
    except BaseException:
        # Otherwise, after Ctrl-C or a signal, this process would wait for the end of their training.
        for process in running.processes:
            process.kill()
        raise
    return summary


def count_processes(settings: Settings) -> int:
    """Return the processes of a training: those set, or, for auto, as many visible GPUs as share a batch evenly."""
    import torch

    wanted, batch = settings.run.training_processes, settings.distill.batch_size
    if wanted != "auto":
        return wanted
    visible = torch.cuda.device_count() if settings.run.device == "cuda" else 1
    return max(count for count in range(1, max(1, visible) + 1) if batch % count == 0)


def check_devices(settings: Settings, count: int) -> None:
    """Check that there is a GPU for each process and that a batch can be shared evenly."""
    import torch

    if settings.run.device.startswith("cuda") and torch.cuda.device_count() < count:
        raise UserError(
            "run.training_processes: each process needs its own GPU",
            found=f"{torch.cuda.device_count()} GPUs",
            expected=f"{count}",
            hint=f"--set run.training_processes={max(1, torch.cuda.device_count())}",
        )
    check_share(settings, count)


def check_share(settings: Settings, count: int) -> None:
    """A batch must be shared evenly."""
    own = settings.distill.batch_size
    if own % count:
        raise UserError(
            "distill.batch_size cannot be shared evenly", found=own, expected=f"a multiple of {count} processes"
        )


def make_accelerator(settings: Settings, student: Student) -> Any:
    """The accelerator of this process, by itself or one of several."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # A process whose share of a step has no prompt of one kind leaves its parameters without a gradient.
    parts = [*student.encoder.Ref_encoder.of_one_kind()]
    learning = any(p.requires_grad for part in parts for p in part.parameters())
    unused = DistributedDataParallelKwargs(find_unused_parameters=learning)
    accelerator = Accelerator(cpu=settings.run.device == "cpu", kwargs_handlers=[unused])
    check_share(settings, accelerator.num_processes)
    return accelerator


def _work_as(rank: int, count: int, port: int, work: Work, train_one: Callable[[Work], Summary], messages: Any) -> None:
    """Run one process of the training."""
    import torch

    on_gpu = work.settings.run.device.startswith("cuda")
    device = f"cuda:{rank}" if on_gpu else "cpu"
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": str(not on_gpu).lower()}
    os.environ.update({name: str(value) for name, value in {**ranks, **place}.items()})
    if on_gpu:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(work.settings.run.threads)
    run = work.settings.run.model_copy(update={"device": device})
    work.settings = work.settings.model_copy(update={"run": run})

    def tell(message: object) -> None:
        if rank == 0:
            messages.put(message)

    with listening(tell):
        summary = train_one(work)
    tell(summary)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the first process may still be writing
        torch.distributed.destroy_process_group()


def _hear(messages: Any, wait_s: float = 0.0) -> Summary | None:
    """Pass on the reports of the first process; returns its summary once it has arrived."""
    while True:
        try:
            message = messages.get(timeout=wait_s) if wait_s else messages.get_nowait()
        except Empty:
            return None
        if isinstance(message, Progress):
            report(message.step, message.total, message.metrics, message.pictures, message.until)
        else:
            return message
