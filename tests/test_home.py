"""~ is the home folder wherever a path is given, and nothing else is expanded."""

import pytest

from mvssl.files import expand_home


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("~", "/home/me"),
        ("~/a b/*.tar", "/home/me/a b/*.tar"),
        ("~root/x", "/root/x"),
        ("classes:~/x", "classes:/home/me/x"),
        ("./~", "./~"),
        ("a/~/b", "a/~/b"),
        ("$HOME/x", "$HOME/x"),
        ("", ""),
    ],
)
def test_a_leading_tilde_means_the_home_folder(path, whole):
    assert expand_home(path) == whole


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "~*.tar"])
def test_an_unknown_user_after_a_tilde_is_refused_with_a_hint(path):
    with pytest.raises(ValueError, match=r"there is no user .*; write \./~"):
        expand_home(path)
