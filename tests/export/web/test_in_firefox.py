"""The page in Firefox, opened from the disk at the width of a phone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .test_in_browser import UTM, compare, photograph, write_tiff

# Pixels of a phone, and of a window at least, which is brought there by its zoom.
PHONE, NARROWEST = 390, 500


class FirefoxVisitor:
    """Somebody who opens a page in Firefox, drops files into it, and touches it."""

    def __init__(self, browser: Any, downloads: Path) -> None:
        self.browser, self.downloads = browser, downloads

    def open(self, page: Path) -> None:
        """Open a page and wait for its model."""
        self.browser.navigate(page.as_uri())
        with self.browser.using_context("chrome"):
            self.run(f"gBrowser.selectedBrowser.fullZoom = {NARROWEST / PHONE}")
        self.wait(lambda: self.run("return document.body.dataset.state") != "loading")

    def run(self, script: str) -> Any:
        """Run JavaScript in the page."""
        return self.browser.execute_script(script)

    def text(self, element: str) -> str:
        """Return the text of an element by its id."""
        return str(self.run(f"return document.getElementById('{element}').textContent"))

    def drop(self, image: Path) -> None:
        """Drop an image and wait until it is segmented, or refused."""
        unfinished = self.text("status"), f"{image.name} is being segmented."
        self.browser.find_element("id", "file").send_keys(str(image))
        self.wait(lambda: self.text("error") != "" or self.text("status") not in unfinished)

    def touch(self, selector: str) -> None:
        """Touch the middle of an element."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        element = self.browser.find_element("css selector", selector)
        finger = self.browser.actions.sequence("pointer", "finger", {"pointerType": "touch"})
        finger.pointer_move(0, 0, origin=element).pointer_down().pause(50).pointer_up().perform()

    def download(self, kind: str, image: Path) -> Path:
        """Save the map as "tif" or "png"."""
        path = self.downloads / f"{image.stem}.classes.{kind}"
        self.touch(f"#{kind}")
        self.wait(lambda: path.is_file() and path.stat().st_size > 0 and not [*self.downloads.glob("*.part")])
        return path

    def wait(self, done: Callable[[], bool], seconds: float = 300) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.text("error")
            time.sleep(0.05)


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirefoxVisitor]:
    """Return a visitor with a headless Firefox of its own."""
    driver = pytest.importorskip("marionette_driver.marionette", reason="marionette_driver is not installed")
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if not program:
        pytest.skip("Firefox is not installed")
    home = tmp_path_factory.mktemp("firefox")
    (downloads := home / "downloads").mkdir()
    settings = {
        "marionette.port": 0,
        "browser.download.folderList": 2,
        "browser.download.dir": str(downloads),
        "browser.helperApps.neverAsk.saveToDisk": "image/tiff,image/png",
    }
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in settings.items()]
    (home / "user.js").write_text("".join(lines), encoding="utf-8")
    command = [
        program,
        "--headless",
        "--marionette",
        "--remote-allow-system-access",
        "--no-remote",
        "--profile",
        str(home),
        "about:blank",
    ]
    environment = {**os.environ, "HOME": str(home)}
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            browser = driver.Marionette(host="127.0.0.1", port=_port(home / "MarionetteActivePort"))
            browser.start_session({"strictFileInteractability": False})
            browser.set_window_rect(width=NARROWEST, height=1100)
            yield FirefoxVisitor(browser, downloads)
            browser.delete_session()
        finally:
            process.terminate()


def _port(file: Path) -> int:
    """Wait until Firefox says where it listens."""
    end = time.monotonic() + 120
    while not file.is_file() or not file.read_text():
        assert time.monotonic() < end, "Firefox doesn't start"
        time.sleep(0.1)
    return int(file.read_text())


def test_a_phone_s_firefox_makes_the_map_that_predict_makes(
    firefox: FirefoxVisitor, page_of: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    image = write_tiff(tmp_path / "field.tif", photograph(150, 210), **UTM)
    compare(firefox, page_of(), image, tmp_path)
    width, needed = firefox.run("return [innerWidth, document.documentElement.scrollWidth]")
    assert width == pytest.approx(PHONE, abs=3)  # steps of the zoom
    assert needed <= width
    asked = firefox.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(address.startswith(("blob:", "data:")) for address in asked)
