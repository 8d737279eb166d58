"""MultiView: from views to a loss; shared encoders, absent rows, the sum of objectives, unreached parameters."""

import pytest
import torch
from spread_objective import SHAPES, Spread, context, views
from torch import Tensor
from torch.testing import assert_close

from mvssl import recipe
from mvssl.distributed.batch_norm import convert_batchnorm
from mvssl.encoders import Encoder, Features, with_view
from mvssl.errors import RecipeError
from mvssl.model import MultiView, build_model, find_idle_parameters

HERE = f"{__name__}:"


class Types(Spread):
    """Notes the dtype in which scores are computed."""

    def forward(self, features, context):
        vectors = [found.vector for found in features.values()]
        self.seen = [v.dtype for v in vectors] + [(v @ v.T).dtype for v in vectors]
        self.maps = {m.dtype for found in features.values() for m in found.maps}
        return super().forward(features, context)


def tables(**changes):
    full = {
        "data": {},
        "views": {"a": {"from": "x", "count": 2}, "b": {"from": "y"}},
        "encoder": {"a": {"name": "resnet10_small", "options": {"channels": [8, 8, 8, 8]}}, "b": {"name": "mlp"}},
        "objective": {"name": HERE + "Spread"},
        "train": {"steps": 1, "out": "nowhere"},
    }
    return recipe.parse_recipe({**full, **changes})


def test_the_model_of_a_recipe_gives_a_loss_metrics_and_gradients():
    model = build_model(tables(), SHAPES)
    loss, metrics = model(views(), context())
    loss.backward()
    assert loss.shape == ()
    assert_close(metrics, {"square": loss.detach()})
    assert all(p.grad is not None for p in model.parameters())
    assert {key.split(".")[0] for key in model.state_dict()} == {"encoders", "objective"}
    assert model.encoder_of("a") is model.encoder_of("a_1") is model.encoders["a"]


def test_building_is_a_function_of_the_seed():
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_model(tables(), SHAPES).state_dict())
    assert_close(*states, rtol=0, atol=0)


def test_objectives_add_up_by_weight_and_metrics_name_their_term():
    name = HERE + "Spread"
    model = build_model(
        tables(objective=[{"name": name, "weight": 2.0}, {"name": name, "weight": 0.5, "embed": 3}]), SHAPES
    )
    loss, metrics = model(views(), context())
    assert set(metrics) == {"Spread_0/square", "Spread_0/loss", "Spread_1/square", "Spread_1/loss"}
    assert_close(loss, 2 * metrics["Spread_0/loss"] + 0.5 * metrics["Spread_1/loss"])
    assert model.labels == ["Spread_0", "Spread_1"]


def test_joint_views_share_batch_statistics_and_others_do_not():
    x = views()
    for joint, parts in ((True, [("a_0", "a_1")]), (False, [("a_0",), ("a_1",)])):
        model = build_model(tables(train={"steps": 1, "out": "x", "joint_bn": joint}), SHAPES)
        found = model.encode(x)
        assert list(found) == list(x)
        for part in parts:
            together = model.encoder_of("a")(torch.cat([x[view] for view in part])).vector
            assert_close(torch.cat([found[view].vector for view in part]), together)


def test_absent_rows_do_not_pass_the_encoder_and_are_zero():
    model = build_model(tables(), SHAPES)
    mask = torch.tensor([True, False, True, False])
    x = views()
    found = model.encode(x, {"a_0": mask, "a_1": mask})
    alone = model.encoder_of("a")(torch.cat([x["a_0"][mask], x["a_1"][mask]]))
    assert_close(found["a_1"].vector[mask], alone.vector[2:])
    assert_close(found["a_1"].maps[2][mask], alone.maps[2][2:])
    assert found["a_0"].vector[~mask].abs().max() == 0
    spoilt = {view: torch.where(mask[:, None, None, None], t, torch.nan) for view, t in x.items()}
    assert_close(model.encode(spoilt, {"a_0": mask, "a_1": mask})["a_0"].vector, found["a_0"].vector)


def test_a_view_without_rows_keeps_graph_and_batch_norm_statistics():
    model = build_model(tables(), SHAPES)
    nobody = torch.zeros(4, dtype=torch.bool)
    before = {name: b.clone() for name, b in model.encoders["a"].named_buffers()}
    loss, _ = model(views(), context(a_0=nobody, a_1=nobody))
    loss.backward()
    assert_close(dict(model.encoders["a"].named_buffers()), before)
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in model.encoders["a"].parameters())
    assert model.encoders["b"].model.layers[0].weight.grad.abs().max() > 0
    assert model.training
    assert model.encoders["a"].model.bn1.training


def test_scores_are_float32_under_autocast_and_float64_where_given():
    model = build_model(tables(objective={"name": HERE + "Types"}), SHAPES)
    with torch.autocast("cpu", torch.bfloat16):
        model(views(), context())
    assert model.objective[0].seen == [torch.float32] * 6
    assert model.objective[0].maps == {torch.bfloat16}  # raised by whoever reads one
    double = model.double()
    double(views(dtype=torch.float64), context())
    assert model.objective[0].seen == [torch.float64] * 6


@pytest.mark.parametrize(
    "objective",
    [
        {"name": "dim", "units": 8, "global_weight": 1.0, "prior_weight": 0.1},
        {"name": "dim", "units": 8, "critic": "concat", "subsample": 4},
        {"name": "amdim", "embed": 8, "scales": [["vector", 1], [1, 2]]},
        {"name": "amdim", "embed": 8, "scales": [["vector", 1]], "mixture": {"components": 2}},
        {"name": "cmc", "embed": 8},
        {"name": "mib", "latent": 4, "units": 8},
        {"name": "infomax", "latent": 4, "units": 8},
        {"name": "predict", "units": 8},
    ],
    ids=lambda objective: " ".join(map(str, objective.values())),
)
def test_no_module_of_an_objective_gets_half_precision(objective):
    encoder = {"name": "resnet10_small", "options": {"channels": [8, 8, 8, 8]}}
    made = tables(views={"a": {"from": "x", "count": 2}}, encoder={"a": encoder}, objective=objective)
    shapes = {view: SHAPES[view] for view in ("a_0", "a_1")}
    model, seen = build_model(made, shapes), []

    def note(module, given, made):
        seen.extend(x.dtype for x in (*given, made) if isinstance(x, Tensor) and x.is_floating_point())

    for module in model.objective.modules():
        module.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = model(views(shapes=shapes), context())
        found = model.encode(views(shapes=shapes))
    loss.backward()
    assert model.objective[0].represent("a_0", model.encode(views(shapes=shapes))["a_0"]).dtype == torch.float32
    assert found["a_0"].maps[1].dtype == torch.bfloat16
    assert set(seen) == {torch.float32}
    assert loss.dtype == torch.float32


class OneView(Spread):
    """Leaves view b out."""

    def forward(self, features, context):
        return super().forward({view: features[view] for view in ("a_0", "a_1")}, context)


class Reader(Spread):
    """Asks for the views themselves and keeps what it is given."""

    reads_views = True

    def forward(self, features, context):
        self.seen = features
        return super().forward(features, context)


def test_only_an_objective_that_reads_views_gets_them_as_map_zero():
    made = tables(objective=[{"name": HERE + "Reader"}, {"name": HERE + "Spread"}])
    model, x = build_model(made, SHAPES), views()
    model(x, context())
    reader, other = model.objective
    assert_close(reader.seen["a_1"].maps[0], x["a_1"])
    for view, widths in reader.widths.items():
        assert widths.maps == tuple(tuple(m.shape[1:]) for m in reader.seen[view].maps)
        assert widths.maps[1:] == other.widths[view].maps


def test_vectors_and_signals_are_maps_of_one_row():
    found = Features((), torch.zeros(4, 2))
    assert with_view(found, torch.randn(4, 7)).maps[0].shape == (4, 7, 1, 1)
    assert with_view(found, torch.randn(4, 9, 50)).maps[0].shape == (4, 9, 1, 50)


def test_idle_parameters_are_found_and_nothing_else_changes():
    model = build_model(tables(objective={"name": HERE + "OneView"}), SHAPES)
    kept = torch.ones_like(model.encoders["a"].model.conv1.weight)
    model.encoders["a"].model.conv1.weight.grad = kept
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(9)
    names = find_idle_parameters(model, views(), context())
    draw = torch.rand(1)
    torch.manual_seed(9)
    assert draw == torch.rand(1)
    assert set(names) == {
        *(f"encoders.b.model.layers.{i}.{key}" for i in (0, 2) for key in ("weight", "bias")),
        "objective.0.project.b.weight",
    }
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.encoders["a"].model.conv1.weight.grad is kept
    assert model.encoders["b"].model.layers[0].weight.grad is None


def test_views_of_one_encoder_need_equal_channels():
    shared = tables(encoder={"name": "resnet10_small"})
    with pytest.raises(RecipeError, match=r"equal channels, these have .*b \(1, 16, 16\)"):
        build_model(shared, SHAPES)


@pytest.mark.parametrize("name", ["half", "type", "keys", "training"])
def test_a_view_must_not_have_the_name_of_an_attribute_of_torch(name):
    made = tables(views={name: {"from": "x"}}, encoder={"name": "mlp"})
    with pytest.raises(RecipeError, match=f"views.{name}: .* call the view {name}_view"):
        build_model(made, {name: (3, 8, 8)})


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("encoder", ["resnet10_small", "dim_conv32"])
def test_a_step_on_one_row_or_none_stays_finite(rows, encoder):
    """With one row in all, dim_conv32's batch norm on a vector sees one value per channel."""
    options = {"channels": [4] * 4} if encoder == "resnet10_small" else {"channels": [4] * 4, "hidden": 8, "code": 4}
    made = tables(encoder={"a": {"name": encoder, "options": options}, "b": {"name": "mlp"}})
    model = convert_batchnorm(build_model(made, {"a_0": (3, 16, 16), "a_1": (3, 16, 16), "b": (1, 16, 16)}))
    here = torch.arange(4) < rows
    loss, _ = model(views(), context(a_0=here, a_1=torch.zeros(4, dtype=torch.bool)))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(b.isfinite().all() for b in model.buffers())
    assert min(b.min() for name, b in model.named_buffers() if name.endswith("running_var")) > 0


def test_each_view_has_the_widths_of_its_own_size():
    made = tables(views={"a": {"from": "x"}, "b": {"from": "x"}}, encoder={"name": "resnet10_small"})
    model = build_model(made, {"a": (3, 8, 8), "b": (3, 16, 16)})
    assert model.encoder_of("a").shape == (3, 16, 16)
    found = model.encode({"a": torch.zeros(2, 3, 8, 8), "b": torch.zeros(2, 3, 16, 16)})
    for view, widths in model.objective[0].widths.items():
        assert widths.maps == tuple(tuple(m.shape[1:]) for m in found[view].maps)
    assert model.objective[0].widths["a"].maps[0] == (64, 8, 8)


def test_widths_name_the_view_of_the_recipe_that_each_is_drawn_from():
    assert {view: w.base for view, w in build_model(tables(), SHAPES).objective[0].widths.items()} == {
        "a_0": "a",
        "a_1": "a",
        "b": "b",
    }
    by_hand = tables(views={"a_0": {"from": "x"}, "a_1": {"from": "x"}}, encoder={"name": "mlp"})
    widths = build_model(by_hand, {"a_0": (3, 8, 8), "a_1": (3, 8, 8)}).objective[0].widths
    assert [w.base for w in widths.values()] == ["a_0", "a_1"]


def test_options_that_fail_only_in_training_are_refused_at_the_start():
    table = recipe.EncoderConfig(name="resnet10_small", options={"channels": [16, 16, 16, 16], "drop_path_rate": 2.0})
    model = MultiView({"a": Encoder(table, (3, 16, 16))}, [])
    with pytest.raises(RecipeError, match=r"encoder.resnet10_small.*drop_path_rate=2.0"):
        find_idle_parameters(model, {"a": torch.randn(2, 3, 16, 16)}, context())
