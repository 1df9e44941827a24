"""The page in a real browser: every picture shown, nothing fetched, no error, phone width, dark mode, the slider."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from segshrink.report import report as write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

UNREADABLE = """
const light = (color) => {
  const linear = (v) => (v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = color.match(/[\\d.]+/g).map((v) => linear(v / 255));
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const color = getComputedStyle(node).backgroundColor;
    if (color.startsWith("rgb(")) return color;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("h1,h2,h3,p,td,th,dt,dd,small,a,figcaption,.leak,.rank,label")].filter((node) => {
  const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
  return (pair[0] + .05) / (pair[1] + .05) < 4.5;
}).map((node) => node.outerHTML.slice(0, 120));
"""


def show(browser: webdriver.Chrome, page: Path, *, width: int, scheme: str, scripts: bool = True) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    browser.get(page.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_shows_whole(browser: webdriver.Chrome, hostile_report: Path, width: int, scheme: str) -> None:
    for kind in ("performance", "browser"):  # what other pages left
        browser.get_log(kind)
    show(browser, hostile_report, width=width, scheme=scheme)
    browser.execute_async_script("Promise.all([...document.images].map(i => i.decode())).then(arguments[0])")
    pictures = browser.execute_script("return [...document.images].map(i => [i.naturalWidth, i.clientWidth])")
    assert len(pictures) > 60
    assert all(natural > 0 and shown > 0 for natural, shown in pictures)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    own = [one["request"]["url"] for one in requests if one["documentURL"] == hostile_report.as_uri()]
    assert [url for url in own if not url.startswith("data:")] == [hostile_report.as_uri()]
    outer, inner = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert outer <= inner
    assert browser.title.endswith("segshrink report")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(browser: webdriver.Chrome, hostile_report: Path, scheme: str) -> None:
    show(browser, hostile_report, width=1280, scheme=scheme)
    assert browser.execute_script(UNREADABLE) == []
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 24)"
    assert dark == (scheme == "dark")
    figure = "const f = document.querySelector('.panel picture');"
    shown = browser.execute_script(
        f"{figure} return f.querySelector('img').currentSrc === f.querySelector('source').srcset"
    )
    assert shown == (scheme == "dark"), "the dark figure is shown on the dark page only"


@pytest.fixture(scope="module")
def report_of_seeds(tmp_path_factory: pytest.TempPathFactory, write_student_run: Callable[..., Path]) -> Path:
    """The page of three students with their controls: seven columns, whose labels are several words."""
    folder = tmp_path_factory.mktemp("seeds")
    quick = {"images": 2, "size": (24, 16), "leave_out": ("metrics.csv",)}
    return write_report(
        [write_student_run(folder / str(seed), name=f"Dubai seed {seed}", **quick) for seed in range(3)], folder
    )


def test_table_scrolls_inside_its_box_on_a_phone(browser: webdriver.Chrome, report_of_seeds: Path) -> None:
    show(browser, report_of_seeds, width=390, scheme="light")
    box = "const b = document.querySelector('.scroll'); b.scrollLeft = 9999;"
    moved, right = browser.execute_script(f"{box} return [b.scrollLeft, b.getBoundingClientRect().right]")
    assert moved > 0
    assert right <= 390
    left = browser.execute_script("return document.querySelector('th[scope=row]').getBoundingClientRect().left")
    assert 0 <= left < 40, "the names of the rows stay in view"


@pytest.mark.parametrize("page", ["hostile_report", "report_of_seeds"])
def test_nothing_of_a_table_is_cut_or_torn_apart_on_a_phone(
    browser: webdriver.Chrome, page: str, request: pytest.FixtureRequest
) -> None:
    show(browser, request.getfixturevalue(page), width=390, scheme="light")
    cut = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].flatMap(box => {"
        " const right = box.getBoundingClientRect().right;"
        " return [...box.querySelectorAll('td, th:not([colspan])')].map(cell => {"
        "  const place = cell.getBoundingClientRect();"
        "  return {left: place.left - right, right: place.right - right,"
        "          over: cell.scrollWidth - cell.clientWidth, text: cell.innerText};"
        " }).filter(cell => (cell.left < -2 && cell.right > 1) || cell.over > 1); })"
    )
    assert cut == [], "a number shows no other than its own digits"
    alone = browser.execute_script(
        "return [...document.querySelectorAll('.named')].filter(named => named.querySelector('i')).filter(named => {"
        " const [mark, word] = ['i', 'span'].map(kind => named.querySelector(kind).getBoundingClientRect());"
        " return mark.bottom <= word.top || mark.right > word.left;"
        "}).map(named => named.outerHTML.slice(0, 160))"
    )
    assert alone == [], "dots and swatches stand beside their words"


def test_slider_uncovers_the_photograph(browser: webdriver.Chrome, hostile_report: Path) -> None:
    show(browser, hostile_report, width=1280, scheme="light")
    clip = "getComputedStyle(document.querySelector('.view.map img')).clipPath"
    assert browser.execute_script(f"return {clip}") in ("inset(0px 0px 0px 0%)", "inset(0px)", "inset(0px 0px 0px 0px)")
    slider = browser.find_element("css selector", ".slide input")
    assert slider.is_displayed()
    slider.send_keys("\ue014" * 30)  # arrow right
    assert "30%" in browser.execute_script(f"return {clip}")
    assert slider.get_attribute("aria-valuetext") == "30 % photograph"
    frame = browser.find_element("css selector", ".view.map .frame")
    browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", frame)
    webdriver.ActionChains(browser).move_to_element(frame).perform()
    assert 45 <= int(slider.get_attribute("value")) <= 55
    photo = browser.execute_script("return getComputedStyle(arguments[0]).backgroundImage", frame)
    assert photo.startswith('url("data:image/jpeg')


def test_page_works_without_scripts(browser: webdriver.Chrome, hostile_report: Path) -> None:
    show(browser, hostile_report, width=1280, scheme="light", scripts=False)
    assert not browser.find_element("css selector", ".slide").is_displayed()
    image = browser.find_element("css selector", ".view.map img")
    assert image.is_displayed()
    assert image.value_of_css_property("opacity") == "1"
    webdriver.ActionChains(browser).move_to_element(image).perform()
    assert image.value_of_css_property("opacity") == "0", "hovering uncovers the photograph"
    show(browser, hostile_report, width=1280, scheme="light")
