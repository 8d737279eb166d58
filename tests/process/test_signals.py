"""Signals: the first one counts, later ones change nothing, and ignored ones stay ignored."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from mvssl.errors import Interrupted
from mvssl.process.signals import stop_signals

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_the_first_signal_decides_the_code_and_later_ones_are_ignored(number, code):
    before = signal.getsignal(number)
    with stop_signals() as stop:
        assert stop.signal is None
        for sent in (number, signal.SIGTERM, signal.SIGINT, number):
            os.kill(os.getpid(), sent)
        assert (stop.signal, stop.code) == (number, code)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_interruptible_work_ends_after_its_clean_up(number, code):
    done = []

    def work() -> None:
        with stop_signals() as stop, stop.interruptible("at once"):
            try:
                os.kill(os.getpid(), number)
                done.append("more work")
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("clean-up")

    with pytest.raises(Interrupted) as caught:
        work()
    assert done == ["clean-up"]
    assert caught.value.code == code


def test_a_signal_ends_the_work_although_its_exception_was_suppressed():
    def work() -> None:
        with stop_signals() as stop, stop.interruptible("at once"), contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)  # in a callback of a C library, for example

    with pytest.raises(Interrupted):
        work()


def test_deferred_work_finishes_before_a_signal_takes_effect():
    def work() -> None:
        with stop_signals() as outer, outer.interruptible("later"), stop_signals() as stop, stop.deferred():
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop is outer
            assert stop.signal == signal.SIGHUP

    with pytest.raises(Interrupted):
        work()


def test_sigusr1_requests_to_save_and_not_to_stop():
    with stop_signals() as stop, stop.interruptible("at once"):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.save_requested
        assert stop.signal is None


def test_a_signal_that_was_ignored_before_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop, stop.interruptible("at once"):
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_child_ignores_signals():
    with stop_signals() as stop:
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(17 if stop.signal is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_any_command_ends_with_the_code_of_the_signal_without_trace(number, code):
    text = f"""
import os, signal
from mvssl.cli import commands
from mvssl.cli.main import main
commands.app.command("wait")(lambda: os.kill(os.getpid(), {int(number)}) or signal.pause())
main()
"""
    done = subprocess.run([sys.executable, "-c", text, "wait"], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
