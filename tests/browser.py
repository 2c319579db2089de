"""A real headless Chromium for the tests, and its tabs as the people before them: what they read, what they type.

Selenium is told where browser and driver are, so it looks for nothing and downloads nothing. What the chat page looks
like inside (its ids and classes) is known here and nowhere else in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = "/usr/bin/chromium"
CHROMEDRIVER = "/usr/bin/chromedriver"

# The page's longest back-off is 20 s, which no test reaches; the rest is a slow machine.
PATIENCE_S = 25.0
TICK_S = 0.05

FLAGS = (
    "--headless",
    "--no-sandbox",  # its sandbox refuses to run as root, which a container's user often is
    "--disable-dev-shm-usage",  # the 64 MiB a container gives /dev/shm are too few
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

LOSE_THE_NEXT_ANSWER = """
    const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (text) {
        send.call(this, text);
        if (!text.includes('"publish"')) return;
        WebSocket.prototype.send = send;
        this.close();
    };
"""


def missing_programs() -> list[str]:
    """The Debian packages to install before a browser can start; empty when all is there."""
    packages = {"chromium": CHROMIUM, "chromium-driver": CHROMEDRIVER}
    return [package for package, program in packages.items() if not Path(program).exists()]


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab on the chat page; every method first brings it to the front."""

    driver: Chrome
    handle: str

    def texts(self) -> list[str]:
        """The messages on the page, from the oldest."""
        return self._read(".message .text")

    def waiting(self) -> list[str]:
        """Those of them that the server has not taken yet."""
        return self._read(".message.waiting .text")

    def mine(self) -> list[str]:
        return self._read(".message.mine .text")

    def people(self) -> list[str]:
        return self._read("#people bdi")

    def state(self) -> str:
        return self._front().find_element(By.ID, "state").text

    def name(self) -> str:
        return self._front().find_element(By.ID, "me").text

    def farewell(self) -> str:
        """The sentence about why the page stays away; "" while it does not."""
        return self._front().find_element(By.CSS_SELECTOR, "#farewell span").text

    def whisper(self) -> str:
        """What is said beside the conversation for a while; "" where nothing is."""
        return self._front().find_element(By.ID, "whisper").text

    def trouble(self) -> list[str]:
        """Why messages of one's own did not go out, without what can be done about it."""
        script = "return [...document.querySelectorAll('.trouble')].map((each) => each.firstChild.textContent)"
        sentences: list[str] = self.run(script)
        return sentences

    def asks_for_token(self) -> bool:
        return self._front().find_element(By.ID, "sign-in").is_displayed()

    def has(self, selector: str) -> bool:
        return bool(self._front().find_elements(By.CSS_SELECTOR, selector))

    def say(self, text: str) -> None:
        self._front().find_element(By.ID, "text").send_keys(text, Keys.ENTER)

    def give_token(self, token: str) -> None:
        self._front().find_element(By.NAME, "token").send_keys(token, Keys.ENTER)

    def reload(self) -> None:
        self._front().refresh()

    def run(self, script: str) -> Any:
        return self._front().execute_script(script)

    def lose_the_next_answer(self) -> None:
        """Close the socket right after the next message was written to it, before the server can answer."""
        self.run(LOSE_THE_NEXT_ANSWER)

    def go_offline(self) -> None:
        """From here no new connection succeeds; those that stand, stand."""
        self._set_offline(True)

    def go_online(self) -> None:
        """Let connections through again; the browser tells the page, as it does when a laptop wakes."""
        self._set_offline(False)

    def until(self, read: Callable[[], object], *, shows: object) -> None:
        """Wait until `read` returns `shows`.

        Raises:
            AssertionError: it never did; says what stood there instead.
        """
        seen: list[object] = []

        def matches(_: Chrome) -> bool:
            seen[:] = [read()]
            return seen == [shows]

        # A redrawn list may take an element away between finding it and reading it.
        wait = WebDriverWait(self.driver, PATIENCE_S, TICK_S, ignored_exceptions=[StaleElementReferenceException])
        try:
            wait.until(matches)
        except TimeoutException as error:
            raise AssertionError(
                f"expected {shows!r} on the page, and after {PATIENCE_S} s there was {seen}"
            ) from error

    def _front(self) -> Chrome:
        if self.driver.current_window_handle != self.handle:
            self.driver.switch_to.window(self.handle)
        return self.driver

    def _read(self, selector: str) -> list[str]:
        # One script, so that no redrawing falls between finding and reading.
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
        texts: list[str] = self._front().execute_script(script, selector)
        return texts

    def _set_offline(self, offline: bool) -> None:
        conditions = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self._front().execute_cdp_cmd("Network.enable", {})
        self._front().execute_cdp_cmd("Network.emulateNetworkConditions", conditions)


@dataclass(frozen=True, slots=True)
class Browser:
    driver: Chrome

    def open(self, url: str) -> Tab:
        """Open `url` in a tab of its own."""
        self.driver.switch_to.new_window("tab")
        self.driver.get(url)
        return Tab(self.driver, self.driver.current_window_handle)

    def complaints(self) -> list[str]:
        """What the browser wrote to its console since last asked: script errors, what the security policy refused."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium leaves it without types
        return [entry["message"] for entry in entries]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in the directory `profile`; it ends with the block."""
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(executable_path=CHROMEDRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
