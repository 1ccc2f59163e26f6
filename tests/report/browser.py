"""A headless Chromium for tests of pages, driven by the DevTools protocol through a pipe."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page in a browser: what is evaluated there comes back as Python values, and errors of scripts as errors."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, os.fdopen(answers, "rb")
        self._last = 0
        self._session: str | None = None
        self.errors: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.send(f"{domain}.enable")
        self.requests: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what happens meanwhile is noted."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        content = bytearray()
        while (byte := self._answers.read(1)) not in (b"\0", b""):
            content += byte
        if not content:
            raise RuntimeError("the browser has ended")
        answer = json.loads(content)
        if answer.get("method") == "Runtime.exceptionThrown":
            self.errors.append(
                str(answer["params"]["exceptionDetails"].get("exception", {}).get("description"))
            )
        if answer.get("method") == "Network.requestWillBeSent":
            self.requests.append(answer["params"]["request"]["url"])
        return answer

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or of the promise that it is."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def resize(self, width: int, dark: bool = False) -> None:
        """Give the page a width, and a light or dark colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path) -> None:
        """Open a page, and wait until it has loaded and its first frame is drawn."""
        self.send("Page.navigate", url=page.resolve().as_uri())
        self.evaluate(
            "new Promise(done => { const look = () => document.readyState === 'complete' && location.href !== "
            "'about:blank' ? requestAnimationFrame(done) : setTimeout(look, 20); look(); })"
        )

    def wait(self, condition: str) -> None:
        """Wait until an expression is true in the page; a page in which it never is ends with an error."""
        found = self.evaluate(
            f"new Promise(done => {{ let left = 1500; const look = () => ({condition}) ? done(true) : left-- ? "
            "setTimeout(look, 20) : done(false); look(); })"
        )
        assert found, f"the page never reached: {condition}"

    def mouse(self, kind: str, x: float, y: float, buttons: int = 0) -> None:
        """Move the mouse (mouseMoved), press it (mousePressed) or release it (mouseReleased)."""
        button = "left" if buttons or kind != "mouseMoved" else "none"
        self.send(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1
        )

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, 1)
        self.mouse("mouseReleased", x, y)

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"Enter": "\r"}.get(key, "")
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def picture(self, whole: bool = False) -> bytes:
        """Return what is in view, or the whole page, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self) -> bytes:
        """Return the page as it is printed."""
        return base64.b64decode(self.send("Page.printToPDF")["data"])


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile, and end it."""
    assert CHROMIUM is not None
    child_reads, commands = os.pipe()
    answers, child_writes = os.pipe()
    # The protocol's pipe is on descriptors 3 and 4.
    script = f'exec "$@" 3<&{child_reads} 4>&{child_writes} >/dev/null 2>&1'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(child_reads, child_writes),
    )
    os.close(child_reads)
    os.close(child_writes)
    started = Browser(commands, answers)
    try:
        yield started
    finally:
        started._session = None
        with contextlib.suppress(RuntimeError, OSError):
            started.send("Browser.close")
        process.terminate()
        process.wait()
        os.close(commands)
        started._answers.close()
