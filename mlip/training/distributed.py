"""Data parallel training by `torchrun`: every process takes its share of each batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")

#: How long processes wait for each other: the others wait while the first evaluates and reports. A
#: process that died is noticed at once, by its connection.
_PATIENCE = timedelta(days=1)


class Workers:
    """The processes of a run; one, unless `torchrun` started several.

    Args:
        device: decides how they talk.

    Attributes:
        rank: of this process.
        size: number of processes.
        device: of this process: with several, "cuda" is the one with its local rank.
    """

    def __init__(self, device: str) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device(device)
        if self.size > 1:
            if self.device.type == "cuda":
                self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
                torch.cuda.set_device(self.device)
            if not dist.is_initialized():
                kind = "nccl" if self.device.type == "cuda" else "gloo"
                dist.init_process_group(kind, timeout=_PATIENCE)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of a sequence that belongs to this process."""
        return items[self.rank :: self.size]

    def sum(self, value: Tensor) -> Tensor:
        """Sum over processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum gradients over processes; one message for all.

        Args:
            parameters: whose gradients are replaced; a process without a gradient counts zero.
        """
        if self.size == 1:
            return
        chosen = [p for p in parameters if p.requires_grad]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in chosen]
        )
        dist.all_reduce(flat)
        for parameter, part in zip(chosen, flat.split([p.numel() for p in chosen]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def close(self) -> None:
        """Leave the group of processes, all at once: a group that some have left can abort."""
        if self.size > 1 and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
