"""Nodes spread over processes started by torchrun; models averaged by all_reduce.

Rank r of P owns the nodes r, r+P, r+2P, ...: any n, also one that P does not divide, as long as
every rank has a node. Batches are functions of (seed, node, step), so the numbers are those of one
process up to the order in which all_reduce adds.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from theory.support.errors import UserError


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
            local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
            if local >= count:
                raise UserError(f"process {local} of this machine has no GPU: {count} found")
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        self.device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def sum_(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor)

    def number(self, value: int) -> int:
        word = torch.tensor(value, device=self.device)
        dist.broadcast(word, 0)
        return int(word.item())

    def share(self, value: Any) -> Any:
        box = [value]
        dist.broadcast_object_list(box, 0, device=self.device)
        return box[0]

    def close(self) -> None:
        dist.destroy_process_group()


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
