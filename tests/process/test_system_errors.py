"""Every end is a sentence and a code: a full disk, a closed pipe, no memory, a bug."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from mvssl.cli import main
from mvssl.errors import RecipeError, StorageError
from mvssl.process.system_errors import as_storage_error
from mvssl.text import printable


def ended(command: str) -> tuple[int, str]:
    """Exit code of `mvssl` in a shell pipeline, and what came on standard error where that is open."""
    script = f"set -o pipefail; '{sys.executable}' -m mvssl {command}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("schema | (exec <&-; sleep 1)", 141),
        ("--help | (exec <&-; sleep 1)", 141),
        ("--help > /dev/full", 74),
        ("schema > /dev/full", 74),
        ("schema >&-", 0),
        ("schema 2>&-", 0),
        ("nonsense 2> /dev/full", 64),
        ("nonsense 2>&1 | true", 64),
        ("nonsense <&- >&- 2>&-", 64),
    ],
)
def test_unwritable_streams_give_an_exit_code_and_no_trace(command, code):
    found, text = ended(command)
    assert (found, "Traceback" in text, "Exception ignored" in text) == (code, False, False)
    assert len(text.splitlines()) == (code == 74)


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(getattr(errno, name), os.strerror(getattr(errno, name)), "/a/file") for name in (
            "ENOSPC", "EDQUOT", "EIO", "EROFS", "EFBIG", "EACCES", "ENAMETOOLONG", "ELOOP", "ENOENT")),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("unable to open shared memory object </torch_1> in read/write mode: Too many open files (24)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        MemoryError(),
    ],
)  # fmt: skip
def test_errors_of_the_machine_exit_with_74_and_name_the_cause(monkeypatch, capsys, error):
    monkeypatch.setattr("mvssl.cli.commands.app", raising(error))
    with pytest.raises(SystemExit) as done:
        main.main(["schema"])
    text = capsys.readouterr().err
    assert (done.value.code, "Traceback" in text) == (74, False)
    assert ("/a/file" in text) == (getattr(error, "filename", None) is not None)


def raising(error):
    """A command that ends so."""

    def command(*_, **__):
        raise error

    return command


def test_a_failed_allocation_of_torch_is_a_storage_error():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**45, dtype=torch.float64)
    assert isinstance(as_storage_error(caught.value), StorageError)


@pytest.mark.parametrize(
    "error", [ValueError("x"), OSError("no number"), KeyError(3), RuntimeError("shape"), TypeError()]
)
def test_a_bug_exits_with_70_and_a_trace(monkeypatch, capsys, error):
    monkeypatch.setattr("mvssl.cli.commands.app", raising(error))
    with pytest.raises(SystemExit) as done:
        main.main(["schema"])
    text = capsys.readouterr().err
    assert (done.value.code, "Traceback" in text, "please report it" in text) == (70, True, True)


def test_each_process_of_a_launch_says_its_number(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr("mvssl.cli.commands.app", raising(MemoryError()))
    with pytest.raises(SystemExit, match="74"):
        main.main(["schema"])
    assert capsys.readouterr().err.startswith("mvssl (process 3): out of memory")


def test_control_characters_are_escaped(monkeypatch, capsys):
    monkeypatch.setattr("mvssl.cli.commands.app", raising(RecipeError("key \x1b[31m\u202e\x07 é 犬\nnext")))
    with pytest.raises(SystemExit, match="64"):
        main.main(["schema"])
    assert capsys.readouterr().err == "mvssl: key \\x1b[31m\\u202e\\x07 é 犬\nnext\n"
    assert printable("a\tb\r\x7f\x9b") == "a\\tb\\r\\x7f\\x9b"


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["verify", "~/a.tar"], ["verify", "/home/me/a.tar"]),
        (["report", "--out=~/x.html", "./~"], ["report", "--out=/home/me/x.html", "./~"]),
        (["pack", "pairs:~/in", "~"], ["pack", "pairs:/home/me/in", "/home/me"]),
        (["train", "~/r.yaml", "train.out=~/x"], ["train", "/home/me/r.yaml", "train.out=~/x"]),  # see the recipe
    ],
)
def test_a_tilde_on_the_command_line_is_the_home_folder(monkeypatch, words, seen):
    given = []
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("mvssl.cli.commands.app", lambda words, **_: given.extend(words))
    main.main(words)
    assert given == seen


def test_a_home_folder_that_does_not_exist_exits_with_64(capsys):
    with pytest.raises(SystemExit, match="64"):
        main.main(["verify", "~no-such-user/a.tar"])
    assert "write ./~no-such-user/a.tar" in capsys.readouterr().err
