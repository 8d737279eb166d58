"""How torch's threads wait is set by the command before torch loads, and never against the user's own setting."""

import os
import subprocess
import sys

import pytest

COMMAND = "from mvssl.cli.main import main; main(['--version']); import torch"


def spins_in_libgomp(code: str, **environment: str) -> str | None:
    """The number of spins that libgomp read when torch loaded it, from its own report."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.partition("GOMP_SPINCOUNT = ")[2] for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    return lines[0].strip("'") if lines else None


def test_the_command_shortens_spinning_before_torch_loads():
    if (before := spins_in_libgomp("import torch")) is None:
        pytest.skip("this torch does not use libgomp")
    assert before != "1000"
    assert spins_in_libgomp(COMMAND) == "1000"


@pytest.mark.parametrize("setting", [{"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "PASSIVE"}])
def test_a_setting_of_the_user_is_left_alone(setting):
    assert spins_in_libgomp(COMMAND, **setting) == spins_in_libgomp("import torch", **setting)


def test_nothing_is_set_when_torch_is_loaded_already():
    code = "import os, torch; from mvssl.process.threads import shorten_spinning as f; f(); print(os.environ)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("GOMP_SPINCOUNT" in done.stdout) is ("GOMP_SPINCOUNT" in os.environ)
