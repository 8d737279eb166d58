"""The page in a real browser: nothing overflows, nothing is requested, no warning."""

import json

import browser as chromium
import pytest

from mvssl.reporting import report

PROGRAM = chromium.find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium on PATH (Debian: apt install chromium)")
WIDTHS = (320, 360, 800, 1400)
LONG = "a_very_long_name_without_any_place_to_break_" * 4


@pytest.fixture(scope="module")
def opened():
    assert PROGRAM
    with chromium.browser(PROGRAM) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(images, kinds, tmp_path_factory):
    """A plain page, one with every kind of view, and one with very long texts."""
    folder = tmp_path_factory.mktemp("pages")
    long = folder / LONG[:200]
    long.mkdir()
    for name in ("recipe.yaml", "versions.json", "evaluation.json"):
        (long / name).write_text((images / name).read_text().replace("cmc", "cmc"))
    (long / "exit.json").write_text(json.dumps({"code": 65, "reason": LONG}))
    lines = [
        {"step": k, f"bound/{LONG}": k, f"ceiling/{LONG}": 9.0, f"{LONG}/{LONG}": 1.0, "loss": 1e9 * k}
        for k in range(9)
    ]
    (long / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (long / "mispaired.jsonl").write_text(json.dumps({"shard": LONG, "key": LONG, "views": [LONG, LONG], "score": 0.1}))
    (long / "verdict.json").write_text(json.dumps({"verdict": LONG, "findings": [{"sentence": LONG, "advice": LONG}]}))
    return [
        report(images, folder / "images.html").file,
        report(kinds, folder / "kinds.html").file,
        report(long, folder / "long.html", samples=0).file,
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_no_page_is_wider_than_its_screen(opened, pages, width, dark):
    for page in pages:
        opened.open(page, width, dark=dark)
        assert opened.value("document.scrollingElement.scrollWidth") <= width, page.name


def test_nothing_is_requested_and_the_console_is_empty(opened, pages):
    for page in pages:
        opened.open(page, 800)
        assert opened.requests() == [page.resolve().as_uri()]
        assert opened.console() == []


def test_all_pictures_load(opened, pages):
    opened.open(pages[0], 800)
    assert opened.value("document.images.length") > 20
    assert opened.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_the_page_is_dark_on_dark_screens_and_light_on_paper(opened, pages):
    light = "getComputedStyle(document.body).backgroundColor"
    opened.open(pages[0], 800)
    assert opened.value(light) == "rgb(255, 255, 255)"
    opened.open(pages[0], 800, dark=True)
    assert opened.value(light) != "rgb(255, 255, 255)"
    opened.ask(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert opened.value(light) == "rgb(255, 255, 255)"


def test_a_script_in_the_page_would_not_run(opened, pages, tmp_path):
    text = pages[0].read_text().replace("</main>", "<script>document.title = 'ran'</script></main>")
    (tmp_path / "evil.html").write_text(text)
    opened.open(tmp_path / "evil.html", 800)
    assert opened.value("document.title") != "ran"
    assert len(opened.console()) == 1


def test_the_page_prints(opened, pages, tmp_path):
    opened.open(pages[0], 800)
    assert opened.print_pdf(tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
