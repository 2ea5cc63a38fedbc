"""A headless Chromium, driven over a pipe with the DevTools protocol: enough to look at a page as a person does.

Standard library only. Every wait has a limit, and says what it waited for and what the page showed instead.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class PageError(AssertionError):
    """The page is not as it should be."""


class Browser:
    """One browser with one page. Use it in a `with` block: its processes and its profile go at the end."""

    def __init__(self, width: int = 1440, height: int = 900, seconds: float = 30):
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            raise SystemExit("error: no Chromium on PATH\nhint: apt-get install chromium")
        self.seconds = seconds
        self._profile = tempfile.TemporaryDirectory(prefix="modalflow-ui-")
        self._next_id = 0
        self._buffer = b""
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        self._process = subprocess.Popen(
            ["sh", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}', program]
            + ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
            + ["--remote-debugging-pipe", f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"]
            + ["--hide-scrollbars", "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self.call("Page.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_) -> None:
        os.close(self._write)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        shutil.rmtree(self._profile.name, ignore_errors=True)
        self._profile._finalizer.detach()

    def call(self, method: str, **params) -> dict:
        """One command of the protocol and its answer; events in between are dropped."""
        self._next_id += 1
        message = {"id": self._next_id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self.seconds
        while True:
            *messages, self._buffer = self._buffer.split(b"\0")
            for position, raw in enumerate(messages):
                answer = json.loads(raw)
                if answer.get("id") == self._next_id:
                    self._buffer = b"\0".join([*messages[position + 1 :], self._buffer])
                    if "error" in answer:
                        raise PageError(f"{method}: {answer['error']['message']}")
                    return answer["result"]
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self._read, 1 << 16) if ready else b""
            if not chunk:
                raise PageError(f"the browser gave no answer to {method}")
            self._buffer += chunk

    def goto(self, url: str) -> None:
        failed = self.call("Page.navigate", url=url).get("errorText")
        if failed:
            raise PageError(f"{url}: {failed}")

    def evaluate(self, expression: str):
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise PageError(f"{expression}: {result['exceptionDetails']['exception'].get('description')}")
        return result["result"].get("value")

    def wait_for(self, expression: str, what: str, seconds: float | None = None):
        """Waits until a JavaScript expression is true; answers with its value."""
        end = time.monotonic() + (seconds or self.seconds)
        while time.monotonic() < end:
            try:
                if value := self.evaluate(expression):
                    return value
            except PageError:
                pass  # the page is changing under us
            time.sleep(0.1)
        raise PageError(f"{what} did not appear; the page {self.evaluate('location.href')} says:\n{self.text()[:2000]}")

    def text(self) -> str:
        return self.evaluate("document.body ? document.body.innerText : ''") or ""

    def see(self, text: str, seconds: float | None = None) -> None:
        """Waits until the page shows this text."""
        self.wait_for(f"document.body && document.body.innerText.includes({json.dumps(text)})", repr(text), seconds)

    def click(self, selector: str, text: str | None = None) -> None:
        """Clicks the first visible, enabled element that matches and, if given, shows exactly this text."""
        find = f"""(() => {{
            const wanted = {json.dumps(text)};
            const found = [...document.querySelectorAll({json.dumps(selector)})].find(e => {{
                const box = e.getBoundingClientRect();
                return box.width && box.height && !e.disabled && (wanted === null || e.innerText.trim() === wanted);
            }});
            if (!found) return null;
            found.scrollIntoView({{block: "center"}});
            const box = found.getBoundingClientRect();
            return {{x: box.x + box.width / 2, y: box.y + box.height / 2}};
        }})()"""
        place = self.wait_for(find, f"something to click: {selector} {text or ''}")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def fill(self, selector: str, text: str) -> None:
        self.click(selector)
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
