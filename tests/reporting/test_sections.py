"""Neighbours, maps and the plane: what is drawn is what the features say."""

from types import SimpleNamespace
from typing import cast

import torch

from mvssl.reporting.gather import read_lines, series
from mvssl.reporting.samples import Look
from mvssl.reporting.sections import embedding, maps, neighbours
from mvssl.reporting.sections.bounds import Bound, find, share
from mvssl.reporting.sections.curves import families
from mvssl.reporting.sections.origin import compact
from mvssl.reporting.sections.summary import lasted


def clusters():
    labels = torch.arange(60) % 3
    return 5 * torch.eye(3, 8)[labels] + 0.1 * torch.randn(60, 8), labels


def test_the_nearest_are_the_most_similar_others():
    x, labels = clusters()
    cosine, number = neighbours.nearest(x, 5)
    assert (labels[number] == labels[:, None]).all()
    assert (number != torch.arange(60)[:, None]).all()
    assert (cosine.diff(dim=1) <= 0).all()
    assert neighbours.nearest(torch.zeros(3, 4), 5)[1].shape == (3, 2)


def test_queries_are_of_different_classes_and_do_not_depend_on_features():
    labels = torch.arange(100) // 10
    chosen = neighbours.choose(labels, 100)
    assert len({int(labels[k]) for k in chosen}) == len(chosen) == neighbours.QUERIES
    assert neighbours.choose(None, 4) == [0, 1, 2, 3]
    assert len(set(neighbours.choose(torch.zeros(50), 50))) == neighbours.QUERIES


def test_groups_that_lie_apart_stay_apart_on_the_map():
    x, labels = clusters()
    placed = embedding.place(x)
    assert placed.min() >= 0
    assert placed.max() <= 1
    middles = torch.stack([placed[labels == k].mean(0) for k in range(3)])
    radius = max(float((placed[labels == k] - middles[k]).norm(dim=1).mean()) for k in range(3))
    assert torch.pdist(middles).min() > 2 * radius


def test_features_that_never_vary_are_one_point():
    assert (embedding.place(torch.ones(30, 4)) == 0.5).all()


def test_the_deepest_map_with_places_is_drawn_and_a_finer_one():
    assert maps.choose([(64, 64), (16, 16), (8, 8), (4, 4), (1, 1)]) == [2, 3]
    assert maps.choose([(8, 8), (8, 8)]) == [1]
    assert maps.choose([(1, 1), (2, 2)]) == []


def test_places_that_are_alike_have_one_colour():
    x = torch.zeros(4, 6, 4, 4)
    x[:, 0, :, :2], x[:, 1, :, 2:] = 1, 1
    colour, share = maps.colours(x)
    assert (colour[..., :2] == colour[0, :, 0, 0][:, None, None]).all()
    assert (colour[:, 0, :, 0] != colour[:, 0, :, 3]).all()
    assert abs(share[0] - 1) < 1e-5


def test_only_finite_numbers_of_whole_steps_become_points(tmp_path):
    file = tmp_path / "lines"
    whole = ['{"step": 2, "a": 1}', '{"step": 1, "a": 3}', '{"step": 2, "a": 2, "b": true}', '{"step": 5, "a": 5}', ""]
    odd = ['{"step": true, "a": 9}', f'{{"step": 3, "a": {10**400}}}', '{"step": 4, "a": Infinity}', '{"step": "1"}']
    broken = ["[1]", "\xff", '{"step": 6, "a"']
    file.write_text("\n".join([*whole, *odd, *broken]))
    lines = read_lines(file, damaged := [])
    found = series(lines)
    assert (found["a"].steps, found["a"].values) == ([1, 2, 5], [3, 2, 5])
    assert list(found) == ["a"]
    assert damaged == ["lines: line 10, 11, 12, no JSON object"]
    assert read_lines(tmp_path / "none", damaged) == []


class Facts:
    def __init__(self, *names: str):
        self.metrics = series([{"step": 1, **dict.fromkeys(names, 0.5)}])


def test_bounds_are_found_by_pair_with_their_ceiling_and_held_out_value():
    names = [
        "bound/a-b",
        "ceiling/a-b",
        "val/bound/a-b",
        "bound/x/local",
        "dim_1/bound/x",
        "dim_1/ceiling/x",
        "val/bound/c-d",
    ]
    found = {one.pair: one for one in find(Facts(*names))}
    assert list(found) == ["a-b", "x/local", "dim_1/x", "c-d"]
    assert found["a-b"].held_out
    assert found["a-b"].ceiling
    assert not found["x/local"].ceiling
    assert found["dim_1/x"].ceiling
    assert not found["c-d"].trained


def test_a_held_out_bound_is_a_share_of_its_own_ceiling():
    """A small data.val has fewer candidates than a batch of training."""
    one, four, two = (series([{"step": 1, "x": value}])["x"] for value in (1.0, 4.0, 2.0))
    assert share(Bound("a-b", one, one, four, two)) == 0.5
    assert share(Bound("a-b", one, None, four, None)) == 0.25


def test_an_objectives_own_metrics_come_together_by_what_they_are():
    names = ["loss", "skl/a-b", "skl/a-c", "cmc_0/loss", "cmc_0/jsd/a-b", "bound/a-b", "val/skl/a-b", "prior_encoder"]
    found = families(Facts(*names))
    assert {name: list(members) for name, members in found.items()} == {
        "skl": ["a-b", "a-c"], "cmc_0/loss": ["cmc_0/loss"], "cmc_0/jsd": ["a-b"], "prior_encoder": ["prior_encoder"]
    }  # fmt: skip


def test_durations_read_as_one_says_them():
    assert [lasted(s) for s in (0.4, 59, 61, 3600 * 3 + 300, 86400 * 2 + 7200)] == [
        "0 s", "59 s", "1 min 1 s", "3 h 5 min", "2 days 2 h"
    ]  # fmt: skip


def test_a_compact_recipe_says_the_same_in_fewer_lines():
    text = "a: {b: null, c: [1, 2], d: {}}\ne: 0\nf: false\n"
    assert compact(text) == "a:\n  c: [1, 2]\ne: 0\nf: false\n"


def test_a_map_of_several_labels_says_which_one_it_is_coloured_by():
    labels = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 0]])
    for classes, name in (["wall", "bed"], "bed"), ([], "class 1"):
        look = SimpleNamespace(classes=classes, class_name=lambda k, known=classes: known[k] if known else str(k))
        groups, said = embedding.group(cast(Look, look), torch.rand(4, 2), labels)
        assert {g.name: len(g.points) for g in groups} == {f"{name} absent": 2, f"{name} present": 2}
        assert f"{name}: 50% have it" in said
