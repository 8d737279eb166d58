"""Views read nothing back from their device: they run on torch's `meta` device, whose tensors have no values."""

import pickle

import pytest
import torch

from mvssl.random import Draws
from mvssl.recipe import ViewConfig
from mvssl.views import build_views

SHAPES = {"rgb": (3, 32, 32), "depth": (1, 16, 16), "sound": (2, 4000), "imu": (6, 50), "vector": (6,)}
VIEWS = {
    "simclr": {"from": "rgb", "augment": "simclr", "count": 2},
    "cmc": {"from": "rgb", "augment": "cmc", "channels": "ab"},
    "linear": {"from": "rgb", "jitter": [0.4, 0.4, 0.4, 0.1], "hue": "linear", "solarize_p": 0.5, "noise": 0.1},
    "dropped": {"from": "rgb", "drop": 0.2, "keep": 0.8, "translate": 3, "color": "ydbdr"},
    "warped": {"from": "rgb", "affine": {"degrees": 10, "scale": [0.8, 1.2]}},
    "depth": {"from": "depth", "geometry": "cmc", "interpolation": "nearest", "nodata": 0},
    "imu": {"from": "imu", "name": "signal", "crop": [0.3, 1], "rotate": 30, "scale": [0.5, 2], "noise": 0.1,
            "drop": 0.2, "mask": 0.2, "normalize": "none"},
    "sound": {"from": "sound", "name": "logmel", "rate": 8000, "length": 3000, "shift": 0.1, "gain": [-6, 6],
              "snr": [10, 20], "time_mask": 0.1, "freq_mask": 0.1, "normalize": "none"},
    "vector": {"from": "vector", "name": "vector", "noise": 0.1, "drop": 0.2, "normalize": "none"},
}  # fmt: skip
TABLES = {name: ViewConfig.model_validate(table) for name, table in VIEWS.items()}


def empty_columns() -> dict[str, torch.Tensor]:
    return {
        name: torch.empty(4, *shape, dtype=torch.uint8 if name == "rgb" else torch.float32, device="meta")
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("base", VIEWS)
def test_no_value_on_the_device_is_needed(base):
    views, position = build_views(TABLES, SHAPES), torch.arange(4)
    column = empty_columns()[views.source_of(base)]
    parameters, draws = views.draw(position, 0).on("meta"), Draws(0, position, scope="view")
    for name in [name for name in views.names if views.view(name) is views.view(base)]:
        ahead = views.draw.views.get(name)
        x = ahead.apply(column, parameters[name], draws) if ahead else views.view(name)(column, draws)
        assert x.device.type == "meta"
        assert x.shape == (4, *views.shapes[name])
    assert views.view(base)(column, None).shape == (4, *views.view(base).shape)


def test_what_workers_draw_can_be_sent_to_processes_of_any_kind():
    draw, position = build_views(TABLES, SHAPES).draw, torch.arange(4)
    again = pickle.loads(pickle.dumps(draw))
    assert torch.equal(again(position, 3).block, draw(position, 3).block)
