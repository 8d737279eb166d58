"""Which samples are queries, and which are nearest."""

import torch
from report_reading import read

from mvssl.reporting.sections.neighbours import QUERIES, choose_queries, find_nearest


def test_the_nearest_are_the_most_similar_others():
    labels = torch.arange(60) % 3
    x = 5 * torch.eye(3, 8)[labels] + 0.1 * torch.randn(60, 8)
    cosine, number = find_nearest(x, 5)
    assert (labels[number] == labels[:, None]).all()
    assert (number != torch.arange(60)[:, None]).all()
    assert (cosine.diff(dim=1) <= 0).all()
    assert find_nearest(torch.zeros(3, 4), 5)[1].shape == (3, 2)


def test_queries_are_of_different_classes_and_do_not_depend_on_features():
    labels = torch.arange(100) // 10
    chosen = choose_queries(labels, 100)
    assert len({int(labels[k]) for k in chosen}) == len(chosen) == QUERIES
    assert choose_queries(None, 4) == [0, 1, 2, 3]
    assert len(set(choose_queries(torch.zeros(50), 50))) == QUERIES


def test_neighbours_have_the_names_of_their_classes(run):
    page = read(run)
    assert any("label bee" in text for text in page.all("title"))
    assert any("label <i>cat</i>" in text for text in page.all("title"))
