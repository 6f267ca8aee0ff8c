"""Nodes spread over processes started by torchrun; models averaged by all_reduce.

Rank r of P owns the nodes r, r+P, r+2P, ...: any n, also one that P does not divide, as long as
every rank has a node. Batches are functions of (seed, node, step), so the numbers are those of one
process up to the order in which all_reduce adds.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from theory.support.command import to_stderr
from theory.support.errors import UserError

#: Seconds that a process which ends with an error waits for what the others have to say.
PATIENCE = 10.0
_PAUSE = 0.02
#: Begins what is said by a process that had no error of its own.
_LOST = "lost touch with another process"


class Communicator:
    """One process: every sum is already complete."""

    rank = 0
    size = 1

    def sum_(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by its sum over all processes."""

    def nodes(self, n_nodes: int) -> list[int]:
        """The nodes that this process runs."""
        return list(range(self.rank, n_nodes, self.size))

    def number(self, value: int) -> int:
        """Rank 0's ``value``, everywhere."""
        return value

    def share(self, value: Any) -> Any:
        """Rank 0's ``value``, everywhere."""
        return value

    def close(self) -> None:
        """Leave the group."""


class Torchrun(Communicator):
    """The processes of one torchrun, over NCCL on GPUs and Gloo on CPUs."""

    def __init__(self, device: torch.device) -> None:
        if device.type == "cuda":
            # Of this machine's processes all find it, and none waits for another.
            if local_processes() > torch.cuda.device_count():
                raise UserError(
                    f"{local_processes()} processes for the {torch.cuda.device_count()} GPUs of this "
                    "machine: use --nproc-per-node so that every one has its own"
                )
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        _meet()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        self.device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def sum_(self, tensor: Tensor) -> None:
        with _others_may_end():
            dist.all_reduce(tensor)

    def number(self, value: int) -> int:
        word = torch.tensor(value, device=self.device)
        with _others_may_end():
            dist.broadcast(word, 0)
        return int(word.item())

    def share(self, value: Any) -> Any:
        box = [value]
        with _others_may_end():
            dist.broadcast_object_list(box, 0, device=self.device)
        return box[0]

    def close(self) -> None:
        dist.destroy_process_group()


@contextmanager
def _others_may_end() -> Iterator[None]:
    """What the libraries raise when another process has ended, as a `UserError`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).split(". ")[0]
        raise UserError(f"{_LOST}, which may have been killed: {reason}") from error


def say_once(line: str) -> None:
    """Print the line of an error with which this process ends; of all of a torchrun's only one does.

    Most mistakes are found by all of them, some by one, which the others then only miss: what is printed is
    the first that says more, in the order of ranks. The rest of torchrun's output is its own.
    """
    store = _store_of_torchrun()
    if store is None:
        to_stderr(line)
        return
    # The first to end makes torchrun end the others, which are about to end themselves.
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    rank, keys = int(os.environ["RANK"]), _keys("said")
    heard, said = [rank], [line]
    # A store that is gone, with torchrun, leaves every process its own line.
    with suppress(RuntimeError):
        # As ASCII: names of files in it may hold bytes that are no UTF-8.
        store.set(keys[rank], json.dumps(line))
        store.set(_key("ended"), "")
        deadline = time.monotonic() + PATIENCE
        while not store.check(keys) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        heard = [r for r, key in enumerate(keys) if store.check([key])]
        said = [json.loads(store.get(keys[r])) for r in heard]
    if rank == heard[0]:
        to_stderr(next((words for words in said if _LOST not in words), line))


def _meet() -> None:
    """Wait until every process of this torchrun has come so far; `UserError` when one ends before."""
    store = _store_of_torchrun()
    if store is None:
        return
    # Forming the group waits as well, but hears neither of errors nor of signals meanwhile.
    here = _keys("here")
    store.set(here[int(os.environ["RANK"])], "")
    while not store.check(here):
        if store.check([_key("ended")]):
            raise UserError(_LOST)
        time.sleep(_PAUSE)


def _key(what: str) -> str:
    """A place in the store, anew whenever torchrun starts its processes again."""
    return f"deep/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{what}"


def _keys(what: str) -> list[str]:
    """A place for every rank."""
    return [f"{_key(what)}/{rank}" for rank in range(int(os.environ["WORLD_SIZE"]))]


def _store_of_torchrun() -> dist.TCPStore | None:
    """What torchrun itself keeps for its processes to agree by, if it does."""
    if not under_torchrun() or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    try:
        return dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=PATIENCE),
            wait_for_workers=False,
        )
    except (RuntimeError, KeyError, ValueError):
        return None


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def local_processes() -> int:
    """Processes of this torchrun on this machine: they share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if under_torchrun() else 1


def check_ranks(communicator: Communicator, n_nodes: int) -> None:
    """Every rank needs a node to run."""
    if communicator.size > n_nodes:
        raise UserError(
            f"{communicator.size} processes for {n_nodes} nodes: "
            f"use --nproc-per-node so that there are at most {n_nodes}"
        )
