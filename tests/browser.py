"""A headless Chromium, spoken to in its DevTools protocol through two pipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
_KEYS = {
    "Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
    "ArrowDown": 40,
}  # fmt: skip


class Tab:
    """One tab: what it asked for and complained of is kept."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out = into, out
        self._count, self._session, self._rest = 0, "", b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._count:
                assert "error" not in told, told
                return dict(told["result"])
            self.events.append(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._out, 1 << 16)
            assert read, "the browser has gone"
            self._rest += read
        first, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(first))

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, *, dark: bool = False, script: bool = True) -> None:
        """Open a file and forget what other files asked for."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + 60
        while self.value("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < until, "the page does not load"

    def value(self, expression: str) -> Any:
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key: str, times: int = 1) -> None:
        text = {"Enter": "\r", " ": " "}.get(key, "")
        shared = {"key": key, "code": "Space" if key == " " else key}
        for _ in range(times):
            for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
                words = {"text": text} if kind == "keyDown" else {}
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    windowsVirtualKeyCode=_KEYS[key],
                    **shared,
                    **words,
                )

    def complaints(self) -> list[str]:
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self.events if e.get("method") in kinds]

    def requests(self) -> list[str]:
        sent = [e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent]


# The browser reads commands from its file 3 and answers to its file 4.
_START = """
import os, sys
for given, place in ((1, 100), (2, 101)):
    os.dup2(int(sys.argv[given]), place)
os.dup2(100, 3), os.dup2(101, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, whose files lie in `folder`."""
    assert PROGRAM is not None
    (commands, into), (out, answers) = os.pipe(), os.pipe()
    options = "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe"
    start = [sys.executable, "-S", "-c", _START, str(commands), str(answers), PROGRAM]
    process = subprocess.Popen(
        [*start, *options.split(), f"--user-data-dir={folder}"],
        pass_fds=(commands, answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    try:
        tab = Tab(into, out)
        tab.attach()
        yield tab
    finally:
        process.terminate()
        process.wait(30)
        os.close(into)
        os.close(out)
