"""The names of the draws of a view."""

from mvssl.recipe.naming import drawn_names, first_drawn, undrawn_name


def test_one_draw_keeps_the_name_and_several_are_numbered():
    assert drawn_names("a", 1) == ["a"]
    assert drawn_names("a", 3) == ["a_0", "a_1", "a_2"]


def test_a_view_is_found_under_its_own_name_or_its_first_draw():
    assert first_drawn("a", drawn_names("a", 1)) == "a"
    assert first_drawn("a", drawn_names("a", 2)) == "a_0"
    assert first_drawn("a_1", drawn_names("a", 2)) == "a_1"
    assert first_drawn("b", drawn_names("a", 2)) is None


def test_a_drawn_name_gives_its_view_only_if_there_is_a_first_draw():
    assert [undrawn_name(name, drawn_names("a", 2)) for name in ("a_0", "a_1")] == ["a", "a"]
    assert undrawn_name("b_1", ["b_1", "b_2"]) == "b_1"
    assert undrawn_name("left", ["left"]) == "left"
