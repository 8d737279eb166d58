"""A signal is a flag once, and then what it was before."""

import os
import signal

from mvssl.stopping import StopSignal


def test_a_signal_is_noted_once_and_then_means_what_it_meant_before():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGTERM) == before
