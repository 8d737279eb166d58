"""Normalisation by name, by numbers, and measured on the source."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_features import SampleList

from mvssl.data import SampleError
from mvssl.errors import RecipeError
from mvssl.recipe import ViewConfig
from mvssl.views import ImageView, VectorView, build_views, resolve_statistics
from mvssl.views.normalize import STATISTICS


def source(n=50):
    rng = np.random.default_rng(0)
    return SampleList(
        {
            "rgb": rng.integers(0, 256, (3, 8, 8), dtype=np.uint8),
            "bands": (rng.normal(size=(4, 8, 8)) * [[[1]], [[2]], [[3]], [[0]]] + 100).astype(np.float32),
            "vector": rng.normal(5, 2, 6).astype(np.float32),
        }
        for _ in range(n)
    )


def test_arrays_that_cannot_be_written_are_measured_too():
    samples = source()
    for sample in samples:
        sample["rgb"].flags.writeable = False
    resolve_statistics({"a": view("rgb", normalize="data")}, SHAPES, samples)  # a warning would be an error


def view(column, **options) -> ViewConfig:
    return ViewConfig.model_validate({"from": column, **options})


SHAPES = {"rgb": (3, 8, 8), "bands": (4, 8, 8), "vector": (6,)}


def test_named_statistics_are_these():
    x = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    for name, expected in (
        ("half", [1.0, 1.0, 1.0]),
        ("none", [1.0, 1.0, 1.0]),
        ("imagenet", [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
    ):
        seen = ImageView((3, 4, 4), normalize=name)(x, None)[0, :, 0, 0]
        torch.testing.assert_close(seen, torch.tensor(expected))


def test_colour_spaces_bring_their_own_statistics_and_channels_pick_them():
    white = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    lightness = ImageView((3, 4, 4), color="lab", channels="L")
    assert lightness(white, None).mean().item() == pytest.approx(1.0, abs=1e-4)
    chroma = ImageView((3, 4, 4), color="lab", channels="ab")
    assert chroma.std.tolist() == pytest.approx(STATISTICS["lab"][1][1:])
    luma = ImageView((3, 4, 4), color="ydbdr", channels="Y")
    assert luma(white, None).mean().item() == pytest.approx(1.0, abs=1e-5)


def test_measured_views_have_mean_zero_and_deviation_one():
    samples = source()
    recipe = {
        "rgb": view("rgb", normalize="data", augment="crop_flip"),
        "ab": view("rgb", normalize="data", color="lab", channels="ab"),
        "bands": view("bands", normalize="data"),
        "vector": view("vector", name="vector"),
    }
    resolved = resolve_statistics(recipe, SHAPES, samples)
    columns = {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in SHAPES}
    seen = build_views(resolved, SHAPES).clean(SimpleNamespace(columns=columns, position=torch.arange(50)))
    for name, x in seen.items():
        rows = x.transpose(0, 1).flatten(1).double()
        deviation = torch.ones(len(rows)).double()
        if name == "bands":
            deviation[3] = 0  # a band that never varies is only centred
        torch.testing.assert_close(rows.mean(1), torch.zeros_like(deviation), atol=1e-3, rtol=0)
        torch.testing.assert_close(rows.std(1, correction=0), deviation, atol=1e-3, rtol=0)


def test_resolved_views_are_plain_numbers_and_the_rest_stays():
    recipe = {"a": view("bands", normalize="data", flip=0.5), "b": view("rgb", normalize="half")}
    resolved = resolve_statistics(recipe, SHAPES, source())
    assert resolved["b"] == recipe["b"]
    assert len(resolved["a"].options["normalize"]["mean"]) == 4
    assert resolved["a"].options["flip"] == 0.5
    assert resolve_statistics(resolved, SHAPES, source()) == resolved  # measuring again changes nothing
    assert ViewConfig.model_validate_json(resolved["a"].model_dump_json(by_alias=True)) == resolved["a"]


def test_bad_samples_and_values_that_are_not_finite_are_left_out():
    class Damaged(SampleList):
        def __getitem__(self, i):
            if i == 3:
                raise SampleError("damaged", "rgb")
            return super().__getitem__(i)

    samples = source()
    samples[0] = {"rgb": samples[0]["rgb"]}
    samples[1]["vector"] = np.array([np.nan, 1e30, np.inf, 5, 5, 5], dtype=np.float32)
    samples[1]["vector"][1] = np.nan
    found = resolve_statistics({"v": view("vector", name="vector")}, SHAPES, Damaged(samples))["v"].options["normalize"]
    kept = np.stack([s["vector"] for i, s in enumerate(samples) if i not in (0, 3)])
    with np.errstate(invalid="ignore"):
        expected = np.nanmean(np.where(np.isfinite(kept), kept, np.nan), axis=0)
    assert found["mean"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("numbers", [{"mean": [0.0] * 3, "std": [1.0, 0.0, 1.0]}, {"mean": [0.0], "std": []}])
def test_numbers_that_cannot_normalise_are_refused(numbers):
    with pytest.raises(RecipeError, match="normalize"):
        ImageView((3, 8, 8), normalize=numbers)


def test_a_vector_view_is_standardised_and_its_noise_has_its_size():
    vectors = VectorView((1000,), noise=0.5, normalize={"mean": [2.0], "std": [4.0]})
    from mvssl.random import Draws

    x = torch.full((20, 1000), 10.0)
    clean, noisy = vectors(x, None), vectors(x, Draws(0, torch.arange(20)))
    assert clean.unique().tolist() == [2.0]
    assert (noisy - clean).std().item() == pytest.approx(0.5, rel=0.03)
    dropped = VectorView((1000,), drop=0.25, normalize="none")(x, Draws(0, torch.arange(20)))
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)
