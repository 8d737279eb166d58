"""Start weights of an encoder: where they may come from, and what is refused."""

import pickle
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from mvssl import recipe
from mvssl.checkpoints.store import save_checkpoint
from mvssl.encoders import Encoder
from mvssl.errors import DataError, RecipeError
from mvssl.model import MultiView


def encoder(name, shape, **table):
    return Encoder(recipe.EncoderConfig(name=name, **table), shape)


def test_start_weights_come_from_a_file_a_folder_or_a_run(tmp_path, monkeypatch):
    made = encoder("dim_conv32", (3, 32, 32))
    own = made.model.state_dict()
    save_file({**own, "head.weight": torch.zeros(2, 64)}, tmp_path / "one.safetensors")  # a classifier is left out
    folder = tmp_path / "export"
    folder.mkdir()
    save_file(own, folder / "model.safetensors")
    whole = {f"encoders.{group}.model.{key}": t + (group == "b") for group in "ab" for key, t in own.items()}
    save_file({**whole, "objective.0.x": torch.ones(1)}, tmp_path / "run.safetensors")
    run = tmp_path / "run"
    run.mkdir()
    model = MultiView({"left,right": made}, [])
    save_checkpoint(run, 3, model, torch.optim.AdamW(model.parameters()), {}, keep=2)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (tmp_path / "one.safetensors", folder, run, "~/run"):
        assert_close(encoder("dim_conv32", (3, 32, 32), init_from=str(source)).model.state_dict(), own)
    table = recipe.EncoderConfig(name="dim_conv32", init_from=str(tmp_path / "run.safetensors"))
    assert_close(Encoder(table, (3, 32, 32), "b").model.state_dict(), {key: t + 1 for key, t in own.items()})
    with pytest.raises(RecipeError, match="encoders 'a', 'b' and none for 'c'"):
        Encoder(table, (3, 32, 32), "c")
    with pytest.raises(RecipeError, match=r"fc.weight is \[1024, 4096\], the model has \[1024, 16384\]"):
        encoder("dim_conv32", (3, 64, 64), init_from=str(folder))
    with pytest.raises(RecipeError, match=r"(?s)missing conv1.weight.*and \d+ more"):
        encoder("resnet18_small", (3, 32, 32), init_from=str(folder))
    with pytest.raises(RecipeError, match="export: name one of these"):
        encoder("dim_conv32", (3, 32, 32), init_from=str(tmp_path))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "one.safetensors").read_bytes()[:1000])
    with pytest.raises(DataError, match="cut"):
        encoder("dim_conv32", (3, 32, 32), init_from=str(tmp_path / "cut.safetensors"))


def start(source, **table):
    """An encoder that starts from a file."""
    return encoder("resnet10_small", (3, 16, 16), options={"channels": [8] * 4}, init_from=str(source), **table)


@pytest.fixture
def own():
    """A state dict that fits `start`."""
    torch.manual_seed(1)
    return encoder("resnet10_small", (3, 16, 16), options={"channels": [8] * 4}).model.state_dict()


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda own: own,
        lambda own: {"state_dict": own, "epoch": 3},
        lambda own: {"model": {f"module.{key}": value for key, value in own.items()}, "args": Namespace(lr=0.1)},
        lambda own: {"teacher": {f"module.backbone.{key}": value for key, value in own.items()}, "student": {}},
        lambda own: {"model": {"state_dict": {f"_orig_mod.{key}": value for key, value in own.items()}}},
        lambda own: {
            "state_dict": {
                **{f"module.encoder_q.{key}": value for key, value in own.items()},
                **{f"module.encoder_k.{key}": value + 1 for key, value in own.items()},
                "module.queue": torch.ones(3),
            }
        },
    ],
    ids=["alone", "state_dict", "module", "teacher", "compiled", "encoder_q"],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
def test_start_weights_are_found_in_files_of_torch_save(tmp_path, own, wrapped, legacy, capsys):
    torch.save(wrapped(own), tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    assert_close(start(tmp_path / "x.pth").model.state_dict(), own, rtol=0, atol=0)
    assert ("x.pth" in capsys.readouterr().err) == (wrapped(own) is not own)  # a warning names what was removed


def test_prefixes_are_removed_in_safetensors_as_well(tmp_path, own):
    save_file({f"module.{key}": value for key, value in own.items()}, tmp_path / "x.safetensors")
    assert_close(start(tmp_path / "x.safetensors").model.state_dict(), own, rtol=0, atol=0)


class Code:
    """A pickle of this runs code where it is read carelessly."""

    def __init__(self, sentinel):
        self.sentinel = str(sentinel)

    def __reduce__(self):
        return open, (self.sentinel, "w")


def test_code_in_start_weights_is_refused_and_does_not_run(tmp_path, own):
    torch.save({"state_dict": own, "hook": Code(tmp_path / "sentinel")}, tmp_path / "x.pth")
    (tmp_path / "y.bin").write_bytes(pickle.dumps(Code(tmp_path / "sentinel")))
    for name in ("x.pth", "y.bin"):
        with pytest.raises(DataError, match=rf"{name} cannot be read as tensors.*state_dict"):
            start(tmp_path / name)
    assert not (tmp_path / "sentinel").exists()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_start_weights_that_are_not_finite_are_refused(tmp_path, own, name, value):
    own["layer3.0.conv1.weight"][0, 0, 0, 0] = value
    save_file(own, tmp_path / name) if name.endswith("s") else torch.save(own, tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: the tensor layer3\.0\.conv1\.weight is NaN or infinite"):
        start(tmp_path / name)


def test_damaged_and_foreign_start_weights_are_refused(tmp_path, own):
    torch.save(own, tmp_path / "x.pth")
    save_file(own, tmp_path / "x.safetensors")
    for name in ("x.pth", "x.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for share in (0.01, 0.5, 0.99):
            (tmp_path / f"cut-{name}").write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(DataError, match=f"cut-{name} cannot be read"):
                start(tmp_path / f"cut-{name}")
    for name, content, said in (
        ("empty.pth", b"", "cannot be read"),
        ("text.pth", b"not weights at all, but text", "cannot be read"),
        ("x.zip", b"PK\x03\x04 no archive", "cannot be read as tensors"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=said):
            start(tmp_path / name)
    for name, held, said in (
        ("list.pth", [torch.ones(1)], "list.pth.*a list"),
        ("table.pth", {"epoch": 3, "lr": 0.1}, "epoch, lr.*state_dict, "),
        ("other.pth", {"a.b": torch.ones(1)}, r"other.pth.*\n.*a\.b"),
        ("whole.pth", {key: torch.zeros_like(value, dtype=torch.int32) for key, value in own.items()}, "int32"),
    ):
        torch.save(held, tmp_path / name)
        with pytest.raises(RecipeError, match=said):
            start(tmp_path / name)
