"""The names of the draws of a view."""

from mvssl.recipe.draw_names import first_draw_name, list_draw_names, view_of_draw


def test_one_draw_keeps_the_name_and_several_are_numbered():
    assert list_draw_names("a", 1) == ["a"]
    assert list_draw_names("a", 3) == ["a_0", "a_1", "a_2"]


def test_first_drawn_gives_the_own_name_or_the_first_draw():
    assert first_draw_name("a", list_draw_names("a", 1)) == "a"
    assert first_draw_name("a", list_draw_names("a", 2)) == "a_0"
    assert first_draw_name("a_1", list_draw_names("a", 2)) == "a_1"
    assert first_draw_name("b", list_draw_names("a", 2)) is None


def test_the_name_of_a_draw_gives_its_view_if_draw_0_exists():
    assert [view_of_draw(name, list_draw_names("a", 2)) for name in ("a_0", "a_1")] == ["a", "a"]
    assert view_of_draw("b_1", ["b_1", "b_2"]) == "b_1"
    assert view_of_draw("left", ["left"]) == "left"
