"""Take a picture of every page of the site in Chromium, at two widths (`make site` comes first).

    python scripts/site_pictures.py OUT [--chromium /usr/bin/chromium] [--page NAME …] [--dark]

Writes OUT/PAGE-WIDTH.png, and says which pages are wider than the window, report an error in
JavaScript, or ask another host for anything; then the exit code is 1.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SITE = Path(__file__).resolve().parent.parent / "site"
WIDTHS = (390, 1280)
TALLEST = 12_000  # pixels of one picture; the rest of a longer page is not shown

# Elements that are wider than the window and not inside a part that scrolls.
_TOO_WIDE = "document.scrollingElement.scrollWidth - window.innerWidth"


class Browser:
    """Headless Chromium, driven through a pipe with its DevTools protocol."""

    def __init__(self, program: str, profile: str) -> None:
        """Start `program` with a new user profile."""
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        def place() -> None:  # the protocol is on descriptors 3 and 4
            os.dup2(to_browser, 13)
            os.dup2(from_browser, 14)
            os.dup2(13, 3)
            os.dup2(14, 4)

        self._process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--remote-debugging-pipe",
             "--disable-gpu", "--disable-background-networking", f"--user-data-dir={profile}"],
            stderr=subprocess.DEVNULL, preexec_fn=place, close_fds=False,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._rest, self._number, self.events = b"", 0, list[dict[str, Any]]()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    _session = ""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one call; events that arrive before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self.events.append(answer)
        raise RuntimeError("the browser has ended")

    def wait(self, event: str) -> None:
        """Read until `event` has come."""
        if not any(seen.get("method") == event for seen in self.events):
            for message in self._messages():
                self.events.append(message)
                if message.get("method") == event:
                    return

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._in, 1 << 20)
                if not read:
                    return
                self._rest += read
            first, _, self._rest = self._rest.partition(b"\0")
            yield json.loads(first)

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait()


def picture(browser: Browser, address: str, width: int, out: Path) -> list[str]:
    """Write one picture; returns what is wrong with the page."""
    browser.events.clear()
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.call("Page.navigate", url=address)
    browser.wait("Page.loadEventFired")
    asked = "JSON.stringify([document.scrollingElement.scrollHeight, " + _TOO_WIDE + "])"
    value = browser.call("Runtime.evaluate", expression=asked)["result"]["value"]
    height, excess = json.loads(value)
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, TALLEST), "scale": 1}
    shot = browser.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
    out.write_bytes(base64.b64decode(shot["data"]))
    wrong = [f"{excess} pixels wider than the window"] if excess > 0 else []
    host = address.split("/")[2]
    for event in browser.events:
        if event.get("method") == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if not url.startswith(("data:", "blob:", f"http://{host}/")):
                wrong.append(f"asks {url}")
        elif event.get("method") == "Runtime.exceptionThrown":
            wrong.append(f"error: {event['params']['exceptionDetails']['text']}")
    return wrong


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--page", nargs="*", default=[], help="as engines.html; otherwise all")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    handler = functools.partial(_Quiet, directory=str(SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = arguments.page or [p.relative_to(SITE).as_posix() for p in sorted(SITE.rglob("*.html"))]
    failed = False
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(arguments.chromium, profile)
        scheme = "dark" if arguments.dark else "light"
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.call("Emulation.setEmulatedMedia", features=features)
        for page in pages:
            for width in WIDTHS:
                name = page.removesuffix(".html").replace("/", "-")
                address = f"http://127.0.0.1:{server.server_port}/{page}"
                for text in picture(browser, address, width, arguments.out / f"{name}-{width}.png"):
                    failed = True
                    print(f"{page} at {width}: {text}")
        browser.close()
    sys.exit(failed)


if __name__ == "__main__":
    main()
