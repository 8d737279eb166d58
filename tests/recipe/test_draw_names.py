"""The names of the draws of a view."""

from mvssl.recipe.draw_names import drawn_names, first_drawn, undrawn_name


def test_one_draw_keeps_the_name_and_several_are_numbered():
    assert drawn_names("a", 1) == ["a"]
    assert drawn_names("a", 3) == ["a_0", "a_1", "a_2"]


def test_first_drawn_gives_the_own_name_or_the_first_draw():
    assert first_drawn("a", drawn_names("a", 1)) == "a"
    assert first_drawn("a", drawn_names("a", 2)) == "a_0"
    assert first_drawn("a_1", drawn_names("a", 2)) == "a_1"
    assert first_drawn("b", drawn_names("a", 2)) is None


def test_the_name_of_a_draw_gives_its_view_if_draw_0_exists():
    assert [undrawn_name(name, drawn_names("a", 2)) for name in ("a_0", "a_1")] == ["a", "a"]
    assert undrawn_name("b_1", ["b_1", "b_2"]) == "b_1"
    assert undrawn_name("left", ["left"]) == "left"
