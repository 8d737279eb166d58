"""Files of tensors: the bytes of safetensors, from live tensors and from copies in a kept buffer."""

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mvssl.checkpoints import tensor_file
from mvssl.checkpoints.tensor_file import TensorFile, buffer_size, claim_buffer
from mvssl.errors import StorageError

CPU = torch.device("cpu")


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(5, 3, 2, 2, generator=generator).contiguous(memory_format=torch.channels_last),
        "bias": torch.randn(7, generator=generator),
        "half": torch.randn(3, generator=generator).bfloat16(),
        "count": torch.tensor(3),
        "mask": torch.tensor([True, False, True]),
        "none": torch.empty(0, 4),
        "über": torch.randn(2, 2, generator=generator).T,
    }


def joined(parts) -> bytes:
    return b"".join(bytes(part) for part in parts)


def contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def test_a_file_holds_what_safetensors_reads():
    tensors = some_tensors()
    read = safetensors.torch.load(joined(TensorFile(tensors).parts()))
    assert read.keys() == tensors.keys()
    assert all(read[name].dtype == tensor.dtype and torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_a_file_of_a_model_has_the_bytes_that_safetensors_writes():
    tensors = {name: tensor for name, tensor in some_tensors().items() if name in ("weight", "bias", "count", "über")}
    assert joined(TensorFile(tensors).parts()) == safetensors.torch.save(contiguous(tensors))


def test_copies_in_a_buffer_are_those_of_the_moment_and_the_buffer_is_used_again():
    tensors = some_tensors()
    files = {"a": TensorFile(tensors), "b": TensorFile({"x": tensors["bias"]})}
    buffer = claim_buffer(buffer_size(files.values()), CPU)
    assert buffer is not None
    for _ in range(2):
        expected = {name: joined(file.parts()) for name, file in files.items()}
        parts = buffer.copy(files)
        tensors["weight"].add_(1)
        tensors["bias"].mul_(2)
        assert {name: joined(part) for name, part in parts.items()} == expected
        assert joined(files["a"].parts()) != expected["a"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of memory")
def test_a_forked_process_does_not_get_the_buffer():
    buffer = claim_buffer(1 << 20, CPU)
    assert buffer is not None
    place = buffer.bytes.data_ptr()

    def is_mapped() -> bool:
        ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
        return any(int(begin, 16) <= place < int(end, 16) for begin, end in ranges)

    assert is_mapped()
    child = os.fork()
    if not child:
        os._exit(is_mapped())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_buffer_is_not_claimed_if_it_takes_more_than_half_of_the_free_memory(monkeypatch):
    class Little:
        available = 1000

    monkeypatch.setattr(tensor_file.psutil, "virtual_memory", Little)
    assert claim_buffer(501, CPU) is None
    assert claim_buffer(500, CPU) is not None


def test_a_type_without_a_name_in_the_format_is_refused_with_the_tensor():
    with pytest.raises(StorageError, match="wave"):
        TensorFile({"wave": torch.zeros(2, dtype=torch.complex128)})
