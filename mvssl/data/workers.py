"""Loader processes: set their limit of open files, get batches from them, and end them.

in   torch's iterator over a `DataLoader` with workers, and whether the run was asked to stop
out  batches; a `StorageError` if a loader process was killed

torch may not report a dead worker, or it raises an error from a signal handler, anywhere in the main thread. So a batch
is requested with a timeout of one second, and the workers are checked after each timeout. The watchdog of a run finds
a worker that hangs.
"""

import contextlib
import multiprocessing
import pickle
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from mvssl.errors import StorageError

POLL = 1.0  # seconds
_running: set[BaseProcess] = set()  # loader processes of this process
_ALWAYS_OPEN = 96  # shards of this process, log files, connections to other processes
_PER_WORKER = 8  # pipes and locks


def raise_open_file_limit(workers: int, tensors: int, prefetch: int = 2) -> None:
    """Raise the limit of open files: workers need one for each of the `tensors` of a waiting batch.

    If the limit is too low, torch hangs. Raise `StorageError` if the system does not allow a higher limit.
    """
    needed = psutil.Process().num_fds() + workers * (_PER_WORKER + prefetch * tensors) + tensors + _ALWAYS_OPEN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed <= soft or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise StorageError(
            f"data.workers={workers} needs about {needed} open files and the limit is {hard}; raise it with "
            f"`ulimit -n {max(1024, needed)}`, or take data.workers=0"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextlib.contextmanager
def start_workers(make: Callable[[], Iterator[Any]]) -> Iterator[tuple[Iterator[Any], list[BaseProcess]]]:
    """Yield the iterator that `make` returns and the processes that it started. Kill the processes at the end.

    Raise `StorageError` if the system starts no more processes.
    """
    before = set(multiprocessing.active_children())
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        iterator = make()
    except OSError as error:
        raise StorageError(f"loader processes cannot be started: {error.strerror}; take fewer data.workers") from None
    finally:
        workers = [child for child in multiprocessing.active_children() if child not in before]
        if in_main and signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler)
    _running.update(workers)
    try:
        yield iterator, workers
    finally:
        for worker in workers:
            worker.kill()  # torch would wait, and send signals that workers ignore
            worker.join()
        _running.difference_update(workers)


def next_batch(iterator: Iterator[Any], workers: list[BaseProcess], stopped: Callable[[], bool]) -> Any:
    """Return the next batch; None after the last one, or if the run was asked to stop. Raise `StorageError`."""
    while True:
        try:
            return next(iterator, None)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            if not workers or str(error).startswith("Caught "):  # raised by a reader, with its own stack trace
                raise
            if stopped():
                return None
            # with a time limit torch no longer checks the thread that copies batches to pinned memory
            copier = getattr(iterator, "_pin_memory_thread", None)
            waiting = str(error).startswith("DataLoader timed out") and (copier is None or copier.is_alive())
            if not waiting:
                raise _worker_error(error, workers) from None


def kill_workers() -> str:
    """Kill the loader processes of this process. Return the state that each had: stopped, in disk-sleep, ..."""
    states = []
    for worker in list(_running):
        try:
            state = psutil.Process(worker.pid).status()
        except psutil.Error:
            state = "gone"
        states.append(f"loader process {worker.pid} is {state}")
        worker.kill()
    return ", ".join(states)


def _worker_error(error: Exception, workers: list[BaseProcess]) -> StorageError:
    for worker in workers:
        worker.join(POLL / max(len(workers), 1))  # the system may report its death late
    dead = [worker for worker in workers if not worker.is_alive()]
    if dead:
        code = dead[0].exitcode
        end = f"signal {-code}" if code is not None and code < 0 else f"code {code}"
        return StorageError(
            f"loader process {dead[0].pid} ended with {end}, perhaps because memory ran out; the same command "
            "continues from the last checkpoint; data.workers=0 loads in the training process"
        )
    first = str(error).partition("\n")[0] or type(error).__name__
    return StorageError(f"a loader process failed: {first}; try fewer data.workers, or a larger `ulimit -n`")
