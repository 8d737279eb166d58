"""Host waits: a wait is named by the line of mvssl that caused it; on a CPU nothing waits."""

import traceback
from pathlib import Path

import torch

import mvssl
from mvssl.bench.devices.host_waits import find_place, trace_steps

PACKAGE = Path(mvssl.__file__).parent


def frames(*files):
    """A stack, outermost first."""
    return traceback.StackSummary.from_list([(str(file), 7, "work", "") for file in files])


def test_the_innermost_line_of_the_package_is_named():
    library = "/lib/torch/optim/adam.py"
    stack = frames("script.py", PACKAGE / "training/step.py", PACKAGE / "training/guard.py", library)
    assert find_place(stack) == "mvssl/training/guard.py:7"


def test_benchmarks_are_named_only_if_nothing_else_of_the_package_waits():
    assert find_place(frames(PACKAGE / "optim.py", PACKAGE / "bench/growth.py")) == "mvssl/optim.py:7"
    assert find_place(frames("script.py", PACKAGE / "bench/growth.py")) == "mvssl/bench/growth.py:7"
    assert find_place(frames("script.py", "/lib/torch/x.py")) == "x.py:7"


def test_on_a_cpu_nothing_waits_and_operations_are_listed():
    x = torch.randn(64, 64)
    trace = trace_steps(lambda: x @ x, torch.device("cpu"))
    assert trace.places == {}
    assert trace.waits == []
    assert "aten::mm" in {call.name for call in trace.kernels}
    assert all(call.count >= 1 and call.seconds >= 0 for call in trace.kernels)
