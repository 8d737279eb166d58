"""What the draws of a view are called, and how one of them is found again."""

from mvssl.views.naming import base_by_name, drawn, first_drawn


def test_one_draw_keeps_the_name_and_several_are_numbered():
    assert drawn("a", 1) == ["a"]
    assert drawn("a", 3) == ["a_0", "a_1", "a_2"]


def test_a_view_is_found_under_its_own_name_or_its_first_draw():
    assert first_drawn("a", drawn("a", 1)) == "a"
    assert first_drawn("a", drawn("a", 2)) == "a_0"
    assert first_drawn("a_1", drawn("a", 2)) == "a_1"
    assert first_drawn("b", drawn("a", 2)) is None


def test_a_drawn_name_tells_its_view_only_where_there_is_a_first_draw():
    assert [base_by_name(name, drawn("a", 2)) for name in ("a_0", "a_1")] == ["a", "a"]
    assert base_by_name("b_1", ["b_1", "b_2"]) == "b_1"
    assert base_by_name("left", ["left"]) == "left"
