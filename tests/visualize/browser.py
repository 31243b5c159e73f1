"""A headless Chromium over the WebDriver protocol, with nothing but urllib.

Debian: `apt-get install chromium chromium-driver`.
Source: https://www.w3.org/TR/webdriver2/ and chromedriver's `goog` extensions.
"""

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

DRIVER = shutil.which("chromedriver")
BINARY = shutil.which("chromium")
_ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars"
).split()
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36}
KEYS |= {"ArrowLeft": 37, "ArrowRight": 39}


class Browser:
    """One page of a browser."""

    def __init__(self, address):
        self._address = address
        self._session = None

    def start(self, user_data):
        arguments = [*_ARGUMENTS, f"--user-data-dir={user_data}"]
        capabilities = {
            "goog:chromeOptions": {"binary": BINARY, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        always = {"capabilities": {"alwaysMatch": capabilities}}
        self._session = self._call("POST", "/session", always)["sessionId"]
        self._post("url", url="about:blank")  # away from the browser's own first page
        self.read_log("browser"), self.read_log("performance")

    def quit(self):
        self._call("DELETE", f"/session/{self._session}")

    def open(
        self, path, width=1400, height=900, scheme="light", motion="no-preference"
    ):
        """Open a file at a size in CSS pixels, as a reader's preferences say."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.command("Emulation.setDeviceMetricsOverride", mobile=False, **size)
        preferences = {"color-scheme": scheme, "reduced-motion": motion}
        features = [
            {"name": f"prefers-{name}", "value": value}
            for name, value in preferences.items()
        ]
        self.command("Emulation.setEmulatedMedia", features=features)
        self._post("url", url=Path(path).resolve().as_uri())

    def run(self, script, *arguments):
        """Run the body of a function and return what it returns."""
        return self._post("execute/sync", script=script, args=list(arguments))

    def command(self, name, **parameters):
        """Send a command of the DevTools protocol."""
        return self._post("goog/cdp/execute", cmd=name, params=parameters)

    def press(self, key):
        """Press and release a key of `KEYS`."""
        values = {"key": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        kind = "keyDown" if text else "rawKeyDown"
        self.command("Input.dispatchKeyEvent", type=kind, text=text, **values)
        self.command("Input.dispatchKeyEvent", type="keyUp", **values)

    def type_text(self, text):
        """Type into what has the focus."""
        self.command("Input.insertText", text=text)

    def read_log(self, kind):
        """Return the new entries of the log `browser` or `performance`."""
        return self._post("se/log", type=kind)

    def list_requests(self):
        """List the addresses asked for since the last call."""
        messages = [json.loads(x["message"]) for x in self.read_log("performance")]
        return [
            message["message"]["params"]["request"]["url"]
            for message in messages
            if message["message"]["method"] == "Network.requestWillBeSent"
        ]

    def take_screenshot(self, path, whole=True):
        """Write a PNG of the page, or of the window alone."""
        found = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def _post(self, what, **values):
        return self._call("POST", f"/session/{self._session}/{what}", values)

    def _call(self, method, place, values=None):
        body = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(self._address + place, body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None


@contextlib.contextmanager
def start_browser(directory):
    """Start a driver and a browser; both end with the context."""
    log = open(Path(directory) / "driver.txt", "w+")
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=log, stderr=log)
    try:
        browser = Browser(f"http://127.0.0.1:{_read_port(log, driver)}")
        browser.start(Path(directory) / "user_data")
        yield browser
        browser.quit()
    finally:
        driver.terminate()
        driver.wait(10)
        log.close()


def _read_port(log, driver):
    """Wait until the driver says on which port it listens."""
    for _ in range(300):
        log.seek(0)
        text = log.read()
        if "started successfully on port" in text:
            return int(text.rsplit("port", 1)[1].strip(" .\n"))
        assert driver.poll() is None, text
        time.sleep(0.1)
    raise AssertionError(f"chromedriver does not start: {text}")
