"""Processes that are killed, starved or cut off from each other: the others end, and the same command continues."""

import ctypes
import faulthandler
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import forked_commands
import pytest
import small_runs
import torch
import torch.distributed as dist
from disturbing import at_step, newest_step, recipe_file, same_weights, send

from mvssl.checkpoints import store
from mvssl.runs import exit_record


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_runs.write_shards(tmp_path_factory.mktemp("shards") / "train").parent


@pytest.fixture
def root(tmp_path, data):
    (tmp_path / "data").symlink_to(data)
    return tmp_path


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data):
    """The run of two processes that nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "data").symlink_to(data)
    done = forked_commands.start(["train", recipe_file(folder, train__log_every=1)], folder, 2)
    assert done.wait() == {0: 0, 1: 0}, done.stderr()
    return folder / "run"


def curve(run: Path) -> list[dict[str, float]]:
    return [{**line, "samples_per_second": 0, "data_wait": 0} for line in small_runs.metrics(run)]


@pytest.mark.parametrize("rank", [0, 1, None])
def test_kill_9_of_one_or_all_processes_changes_no_bit(root, straight, rank):
    file = recipe_file(root, train__save_every=3, train__log_every=1)
    killed = forked_commands.start(["train", file], root, 2, at_step(4, send(signal.SIGKILL), rank))
    codes = killed.wait(grace=None)
    assert sorted(codes.values()) == ([-9, -9] if rank is None else [-9, 75]), killed.stderr(0) + killed.stderr(1)
    assert abs(killed.ended[0] - killed.ended[1]) < 1
    assert forked_commands.start(["train", file], root, 2).wait() == {0: 0, 1: 0}
    assert curve(root / "run") == curve(straight)
    assert same_weights(root / "run", straight, 12)


@pytest.mark.parametrize("call", [(Path, "rename"), (shutil, "rmtree")])
def test_the_next_save_cleans_up_after_a_kill(root, call):
    def prepare(_: int) -> None:
        owner, name = call
        plain = getattr(owner, name)

        def killing(path, *given, **keywords):
            if Path(path).name.startswith((".deleting-", "step-")):  # of a checkpoint that is not kept any more
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(path, *given, **keywords)

        setattr(owner, name, killing)

    file = recipe_file(root, train__save_every=2, train__keep=2)
    assert forked_commands.start(["train", file], root, prepare=prepare).wait() == {0: -9}
    assert newest_step(root / "run") == 6
    assert forked_commands.start(["train", file], root).wait() == {0: 0}
    assert sorted(os.listdir(root / "run" / "checkpoints")) == ["step-00000010", "step-00000012"]


def test_a_signal_during_a_save_leaves_one_complete_checkpoint(root):
    def prepare(_: int) -> None:
        sync, calls = os.fsync, []

        def synced(handle):
            calls.append(handle)
            if len(calls) in (5, 6):
                os.kill(os.getpid(), signal.SIGTERM)
            return sync(handle)

        os.fsync = synced

    file = recipe_file(root, train__save_every=4)
    assert forked_commands.start(["train", file], root, prepare=prepare).wait() == {0: 143}
    assert not [found for found in store.list_checkpoints(root / "run") if store.find_damage(found)]
    assert newest_step(root / "run") >= 4


def test_sigusr1_to_each_of_two_processes_saves_once(root, straight):
    asked = forked_commands.start(["train", recipe_file(root)], root, 2, at_step(4, send(signal.SIGUSR1)))
    assert asked.wait() == {0: 0, 1: 0}, asked.stderr()
    assert [store.step_in_name(found) for found in store.list_checkpoints(root / "run")] == [12, 7]
    assert same_weights(root / "run", straight, 12)


@pytest.fixture
def spaces():
    """Two network namespaces, joined by a cable."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and the program ip")
    names = [f"mvssl{os.getpid()}{end}" for end in "ab"]

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no network namespace can be made: {done.stderr.strip()}")

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "name", "cable0", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable0")
            ip("-n", name, "link", "set", "cable0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_processes_whose_network_is_cut_end_on_both_sides(root, spaces):
    def enter(rank: int) -> None:
        with open(f"/run/netns/{spaces[rank]}") as file:
            assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0) == 0
        os.environ |= {"MASTER_ADDR": "10.77.0.1", "GLOO_SOCKET_IFNAME": "cable0"}
        at_step(4, pull, rank=0)(rank)

    def pull() -> None:
        subprocess.run(["ip", "link", "set", "cable0", "down"], check=True)
        (root / "pulled").write_text(str(time.monotonic()))

    cut = forked_commands.start(["train", recipe_file(root, train__hang_timeout=2)], root, 2, enter)
    assert cut.wait(grace=None) == {0: 75, 1: 75}, cut.stderr(0) + cut.stderr(1)
    waited = [ended - float((root / "pulled").read_text()) for ended in cut.ended.values()]
    assert max(waited) < 4
    assert exit_record.read_exit(root / "run").code == 75


def test_processes_that_exchange_unequal_sizes_end_soon(root):
    def act() -> None:
        faulthandler.disable()  # pytest's, which this process has inherited
        dist.all_reduce(torch.ones(1000 * (1 + dist.get_rank())))

    ended = forked_commands.start(["train", recipe_file(root)], root, 2, at_step(4, act))
    assert sorted(ended.wait(grace=None).values()) == [-signal.SIGABRT, 75]
    assert "Received data size doesn't match" in ended.stderr(0) + ended.stderr(1)  # by gloo
    assert exit_record.read_exit(root / "run").code == 75


def test_a_clock_that_jumps_changes_nothing(root, straight):
    def prepare(_: int) -> None:
        clock, calls = time.time, []

        def jumping() -> float:
            calls.append(0)
            return clock() + (-1) ** len(calls) * 1e8

        time.time = jumping

    file = recipe_file(root, train__hang_timeout=2)
    assert forked_commands.start(["train", file], root, 2, prepare).wait() == {0: 0, 1: 0}
    assert same_weights(root / "run", straight, 12)


def test_a_lack_of_memory_exits_with_74_and_the_run_can_continue(root):
    def starve() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, resource.RLIM_INFINITY))
        torch.zeros(2**26)

    file = recipe_file(root, train__save_every=3)
    ended = forked_commands.start(["train", file], root, prepare=at_step(4, starve))
    assert ended.wait() == {0: 74}, ended.stderr()
    assert "out of memory" in exit_record.read_exit(root / "run").reason
    assert newest_step(root / "run") == 3
    assert forked_commands.start(["train", file], root).wait() == {0: 0}


def test_two_processes_have_the_losses_of_one(root):
    runs = []
    for world in (1, 2):
        file = recipe_file(root, f"run{world}", train__steps=24, train__log_every=1)
        assert set(forked_commands.start(["train", file], root, world).wait().values()) == {0}
        runs.append([line["loss"] for line in small_runs.metrics(root / f"run{world}")])
    assert len(runs[0]) == 24
    assert max(abs(a / b - 1) for a, b in zip(*runs, strict=True)) < 1e-5


def test_a_second_run_in_a_folder_is_refused_with_the_first_process(root):
    file = recipe_file(root)
    first = forked_commands.start(
        ["train", file], root, prepare=at_step(4, lambda: (root / "asleep").touch() or time.sleep(60))
    )
    while not (root / "asleep").is_file():
        time.sleep(0.01)
    before = contents(root / "run")
    (root / "second").mkdir()
    begin = time.monotonic()
    second = forked_commands.start(["train", file], root / "second")
    assert second.wait() == {0: 73}
    assert time.monotonic() - begin < 5
    assert f"process {first.children[0]} on {socket.gethostname()}" in second.stderr()
    assert contents(root / "run") == before
    first.signal(0, signal.SIGKILL)
    first.wait()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
