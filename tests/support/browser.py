"""A real headless Chromium, driven by its DevTools protocol over a pair of pipes.

Tests skip where Debian's `chromium` is not installed.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 60.0
_NAMES = ("chromium", "chromium-headless-shell")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # which refuses root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class Page:
    """One tab. `faults` has uncaught exceptions and the browser's own complaints; `urls` the URL of
    each request."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.faults: list[str] = []
        self.urls: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Load `url`, also if only its fragment differs, and wait until the page has it all."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.wait(f"location.href !== 'about:blank' && {IDLE}")

    def go(self, fragment: str) -> None:
        self.run(f"location.hash = {json.dumps(fragment)}")
        self.run("new Promise((done) => setTimeout(done))")  # the event comes first
        self.wait(IDLE)

    def close(self) -> None:
        self._browser.close(self._session)

    def run(self, script: str) -> Any:
        """The value of a script, of a promise once it is settled."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.run(condition):
            assert time.monotonic() < deadline, f"never: {condition}; {self.faults}"
            time.sleep(0.02)  # there is no event for an arbitrary condition

    def text(self, selector: str = "main") -> str:
        """What a reader sees of the first element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        script = (
            f"Array.from(document.querySelectorAll({json.dumps(selector)}), (e) => e.innerText)"
        )
        return list(self.run(script))

    def press(self, key: str, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **extra, **_code(key))

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        mobile = width < 500
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        found = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def took(self, event: dict[str, Any]) -> None:
        parameters = event["params"]
        match event["method"]:
            case "Runtime.exceptionThrown":
                self.faults.append(str(parameters["exceptionDetails"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.faults.append(
                    f"{parameters['entry']['text']} {parameters['entry'].get('url')}"
                )
            case "Network.requestWillBeSent":
                self.urls.append(parameters["request"]["url"])


IDLE = "document.querySelector('main')?.getAttribute('aria-busy') === 'false'"


class Browser:
    """The process; `commands` and `answers` are the ends of its pipes."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._numbers = itertools.count(1)
        self._buffer = bytearray()
        self._pages: dict[str, Page] = {}

    def page(self) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            if page := self._pages.get(answer.get("sessionId", "")):
                page.took(answer)

    def close(self, session: str) -> None:
        del self._pages[session]
        self.call("Page.close", session)

    def _next(self) -> dict[str, Any]:
        while (end := self._buffer.find(b"\0")) < 0:
            ready, _, _ = select.select([self._answers], [], [], SECONDS)
            assert ready, "chromium does not answer"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "chromium has ended"
            self._buffer += piece
        message = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        return dict(message)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with its files in `profile`."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    profile.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        (theirs_in, commands), (answers, theirs_out) = os.pipe(), os.pipe()
        for fd in (commands, answers):
            stack.callback(os.close, fd)
        # It reads from descriptor 3 and writes to 4. Not sh: Debian's knows one-digit descriptors.
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = ["bash", "-c", shell, "bash", program, *_OPTIONS, f"--user-data-dir={profile}"]
        log = stack.enter_context((profile / "log").open("wb"))
        process = subprocess.Popen(
            command,
            pass_fds=(theirs_in, theirs_out),
            stdout=log,
            stderr=log,
            env=_variables(profile),
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        for fd in (theirs_in, theirs_out):
            os.close(fd)
        browser = Browser(commands, answers)
        yield browser
        with contextlib.suppress(AssertionError, OSError):
            browser.call("Browser.close")
            process.wait(10)


def _variables(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "TZ": "UTC"}


def _code(key: str) -> dict[str, int]:
    codes = {"Enter": 13, "Tab": 9, "Escape": 27, "/": 191, "End": 35}
    return {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
