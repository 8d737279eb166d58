"""Messages between the processes of one machine: the same numbers as gloo, and an error if a process is gone."""

import os
import socket
from contextlib import closing

import pytest
import torch
import torch.distributed as dist
from gloo_processes import processes
from torch.testing import assert_close

from mvssl.distributed import collectives, local_exchange

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool)


def exchange_numbers(shape):
    sent = [torch.full(shape, 10.0 * collectives.rank() + to) for to in range(collectives.world_size())]
    with closing(local_exchange.connect(60)) as exchange:
        return exchange(sent)


@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (2, 5, 1)])
def test_every_process_gets_what_each_one_sent_to_it(shape):
    for rank, received in enumerate(processes(exchange_numbers, shape, world=3)):
        assert_close(received, torch.stack([torch.full(shape, 10.0 * sender + rank) for sender in range(3)]))


def exchange_types():
    with closing(local_exchange.connect(60)) as exchange:
        return [exchange([torch.arange(4).to(dtype)] * 2) for dtype in DTYPES]


def test_every_type_of_numbers_arrives_as_it_was_sent():
    for received in processes(exchange_types):
        for dtype, tensor in zip(DTYPES, received, strict=True):
            assert_close(tensor, torch.arange(4).to(dtype).expand(2, 4), atol=0, rtol=0)


def gather_with_gradient(limit):
    collectives.LIMIT, before = limit, collectives.LIMIT
    try:
        x = (torch.arange(6.0).view(3, 2) + 6 * collectives.rank()).requires_grad_()
        total = collectives.sum_over_processes(x.sin())
        rows = collectives.gather(x.cos())
        (rows * torch.arange(12.0).view(6, 2) * (1 + collectives.rank())).sum().backward()
        connected = collectives._local is not None and collectives._local[1] is not None
        return total.detach(), rows.detach(), x.grad, connected
    finally:
        collectives.LIMIT = before


def test_sums_rows_and_gradients_equal_those_of_gloo():
    by_gloo, by_socket = processes(gather_with_gradient, 0), processes(gather_with_gradient, 1 << 16)
    assert all(one[-1] for one in by_socket)
    for one, other in zip(by_gloo, by_socket, strict=True):
        assert_close(one[:3], other[:3])
    assert torch.equal(by_socket[0][0], by_socket[1][0])  # the same bits on every process


def connect_as(hosts):
    own, socket.gethostname = socket.gethostname, lambda: hosts[collectives.rank()]
    try:
        exchange = local_exchange.connect(60)
    finally:
        socket.gethostname = own
    if exchange is not None:
        exchange.close()
    return exchange is None


def test_processes_on_two_machines_are_not_connected():
    assert processes(connect_as, ("a", "b")) == [True, True]
    assert processes(connect_as, ("a", "a")) == [False, False]


def lose_a_process():
    with closing(local_exchange.connect(60)) as exchange:
        if collectives.rank() == 1:
            return "gone"
        try:
            exchange([torch.ones(3)] * 2)
            exchange([torch.ones(3)] * 2)
        except ConnectionError as error:
            return type(error).__name__
        return "waited"


def test_a_process_that_is_gone_is_an_error_and_no_wait():
    first, second = processes(lose_a_process, timeout=20)
    assert first in ("ConnectionResetError", "BrokenPipeError")
    assert second == "gone"


def fork_and_lose():
    """The second process leaves a forked child behind, as loader workers are, and closes its own connections."""
    collectives.gather(torch.ones(1))
    exchange = collectives._local[1]
    child = None
    if collectives.rank() == 1:
        child = os.fork()
        if not child:
            os.read(os.pipe()[0], 1)  # waits until it is killed
        exchange.close()
    outcome = "closed"
    if collectives.rank() == 0:
        try:
            exchange([torch.ones(3)] * 2)
            exchange([torch.ones(3)] * 2)
            outcome = "waited"
        except ConnectionError:
            pass
    exchange.close()
    collectives._local = None  # later calls connect anew
    dist.barrier()
    if child:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return outcome


def test_a_forked_child_does_not_keep_the_connections_open():
    assert processes(fork_and_lose, timeout=20) == ["closed", "closed"]
