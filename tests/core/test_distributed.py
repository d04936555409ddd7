"""What workers tell each other."""

from __future__ import annotations

import datetime
from pathlib import Path

import torch
import torch.distributed as dist

from gemix.core.distributed import AsyncFlag, Workers
from tests.processes import run_processes


def test_a_single_worker_knows_its_flag_at_once():
    flag = AsyncFlag(Workers())
    assert [flag.exchange(value) for value in (False, True, False)] == [False, True, False]


def run_worker(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    flag = AsyncFlag(Workers.from_process_group())
    found = []
    for value in (False, True, False, False):
        token = torch.zeros(1)
        if rank == 0:  # has told nothing yet when the other worker's call returns
            dist.recv(token, src=1)
            found.append(flag.exchange(value))
        else:
            found.append(flag.exchange(not value))
            dist.send(token, dst=0)
        dist.barrier()
    Path(folder, str(rank)).write_text(repr(found))
    dist.destroy_process_group()


def test_workers_learn_the_flag_of_rank_0_one_call_later_and_never_wait(tmp_path):
    run_processes(run_worker, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert (tmp_path / str(rank)).read_text() == repr([False, False, True, False])
