"""The pictures of traces in a real browser, and as images."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from axonfs.trace.page import page
from axonfs.trace.picture import picture
from axonfs.trace.png import WIDTH, png
from tests.support.browser import Page
from tests.support.traces import MIB, Made, loads

EVIL = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=2'>\u202e\x1b[31m"
WIDER = "document.documentElement.scrollWidth > innerWidth"


def shown(tab: Page, made: Made, tmp_path: Path, width: int = 1280) -> None:
    path = tmp_path / "load.html"
    path.write_text(page(picture(made.trace(), "load.trace")), encoding="utf-8")
    tab.resize(width, 900)
    tab.urls.clear()
    tab.open(path.as_uri())
    assert tab.urls == [path.as_uri()]


@pytest.mark.parametrize("count", [0, 1, 100])
@pytest.mark.parametrize("width", [360, 1280])
def test_no_load_one_or_a_hundred_fit_the_window(
    tab: Page, tmp_path: Path, count: int, width: int
) -> None:
    shown(tab, loads(count), tmp_path, width)
    assert len(tab.texts(".row.file")) == count
    assert not tab.run(WIDER)
    assert tab.texts(".advice li") != []


def test_names_stay_text(tab: Page, tmp_path: Path) -> None:
    made = Made(mountpoint=EVIL, prefetch=EVIL)
    file = made.file(f"nlp/a/1/{EVIL}{'n' * 255}", MIB, f"{EVIL}@1")
    made.program(0, EVIL)
    made.fetched(file, 0, MIB, 0.0, 1.0)
    made.read(file, 0, MIB, 0.0, 1.0, waits=True)
    made.waited(1.0, **{EVIL: 1.0})
    shown(tab, made, tmp_path, 400)
    assert tab.run("window.pwned") is None
    assert not tab.run(WIDER)
    assert "</script>" in tab.text(".row.file b")
    assert "\u202e" not in tab.text("body")
    assert png(picture(made.trace(), "x")).startswith(b"\x89PNG")


def test_the_pointer_says_when_and_which_byte(tab: Page, tmp_path: Path) -> None:
    made = Made()
    file = made.file("nlp/a/1/model.bin", 100 * MIB, "nlp/a@1")
    made.fetched(file, 0, 100 * MIB, 10.0, 12.0)
    shown(tab, made, tmp_path)
    x, y, wide, high = tab.run(
        "(({x, y, width, height}) => [x, y, width, height])"
        "(document.querySelector('.row.file .plot').getBoundingClientRect())"
    )
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + wide / 2, y=y + high / 2)
    tab.wait("!document.querySelector('.moment').hidden")
    assert tab.text(".moment").startswith("1.0")  # of two seconds
    assert "byte 50 MiB" in tab.text(".moment") or "byte 49 MiB" in tab.text(".moment")


def test_a_drag_looks_closer_and_a_double_click_sees_all(tab: Page, tmp_path: Path) -> None:
    shown(tab, loads(1), tmp_path)
    x, y, wide, high = tab.run(
        "(({x, y, width, height}) => [x, y, width, height])"
        "(document.querySelector('.row.file .plot').getBoundingClientRect())"
    )
    before = tab.texts(".axis span")
    for kind, part in (("mousePressed", 0.5), ("mouseMoved", 0.7), ("mouseReleased", 0.75)):
        at = {"x": x + part * wide, "y": y + high / 2}
        tab.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)
    boxes = set(
        tab.run(
            "Array.from(document.querySelectorAll('.plot svg'), s => s.getAttribute('viewBox'))"
        )
    )
    assert len(boxes) == 1
    left, _, width, _ = map(float, boxes.pop().split())
    assert (round(left, -2), round(width, -2)) == (5000, 2500)
    assert tab.texts(".axis span") != before
    tab.run("document.querySelector('.plot').dispatchEvent(new Event('dblclick', {bubbles: true}))")
    assert tab.texts(".axis span") == before


def test_many_files_are_filtered_by_name(tab: Page, tmp_path: Path) -> None:
    shown(tab, loads(3, files=5), tmp_path)
    tab.run("document.querySelector('.filter input').focus()")
    tab.type("00002-of")
    assert len(tab.texts(".row.file:not([hidden])")) == 3


def test_the_image_has_the_same_rows() -> None:
    found = picture(loads(4, files=2).trace(), "load.trace")
    with Image.open(io.BytesIO(png(found))) as image:
        assert image.width == WIDTH
        assert image.height > sum(panel.height for panel in (*found.charts, *found.files))
        colours = {pixel for _, pixel in image.getcolors(1 << 20) or []}
    assert {(0x1F, 0x6F, 0xEB), (0xD9, 0x48, 0x0F)} <= colours  # arrived, and read
