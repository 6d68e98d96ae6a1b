"""Opens the page at /ui in headless Chromium and looks at what it shows.

Arguments: the URL and a directory for pictures. BROOD_KEY is a key that may do everything.
"""

import os
import sys
from decimal import Decimal
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from brood import Client, Denied

PATIENCE = 60
HOSTILE = "<script>window.broken=1</script><img src=x onerror='window.broken=1'>&amp;\u202e"
SCHEMES = ("light", "dark")
#: What text is written in, and on.
INKS = ("--ink", "--soft", "--accent", "--good", "--wait", "--bad")
GROUNDS = ("--card", "--ground")


def start() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1440,1100"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)


class Page:
    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def wait(self, what, why: str):
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: what(), why)

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.driver.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def enter(self, key: str) -> None:
        field = self.driver.find_element(By.ID, "key")
        field.clear()
        # By keyboard alone.
        field.send_keys(key, Keys.ENTER)

    def is_live(self) -> bool:
        return self.text("#link") == "live"

    def nodes(self) -> int:
        return len(self.all("#forest [data-machine]"))

    def scheme(self, name: str) -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": name}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def luminance(color: str) -> float:
    """WCAG 2.2, "relative luminance"."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def check_contrast(page: Page) -> None:
    for scheme in SCHEMES:
        page.scheme(scheme)
        read = "const all = getComputedStyle(document.documentElement); return all.getPropertyValue(arguments[0]).trim()"
        color = {name: page.driver.execute_script(read, name) for name in (*INKS, *GROUNDS, "--bad-ground")}
        pairs = [(ink, ground) for ink in INKS for ground in GROUNDS]
        pairs += [("--bad", "--bad-ground"), ("--ink", "--bad-ground")]
        for ink, ground in pairs:
            found = contrast(color[ink], color[ground])
            assert found >= 4.5, f"{scheme}: {ink} on {ground} has a contrast of {found:.2f}"


def check_shape(page: Page) -> None:
    """What a screen reader goes by."""
    driver = page.driver
    assert driver.execute_script("return document.documentElement.lang") == "en"
    unnamed = driver.execute_script(
        "return [...document.querySelectorAll('input')].filter((one) => !one.labels.length).length"
    )
    assert unnamed == 0, "an input without a label"
    headings = driver.execute_script("return [...document.querySelectorAll('h1,h2')].map((one) => one.tagName)")
    assert headings[0] == "H1" and headings.count("H1") == 1, headings
    bars = driver.execute_script(
        "return [...document.querySelectorAll('.bar:not([hidden])')].filter((one) => !one.ariaLabel).length"
    )
    assert bars == 0, "a bar that says nothing"


def check_usage(page: Page, client: Client) -> None:
    """The bill on the page is the bill of the API, charge by charge, and adds up."""
    client.rate()
    told = client.usage(by="project")
    rows = "return [...document.querySelectorAll(arguments[0])].map((row) => [...row.children].map((cell) => cell.textContent))"
    of = lambda selector: page.driver.execute_script(rows, selector)[1:]
    forks = [str(group.measured.forks) for group in told.groups]
    assert forks == ["6"], told
    page.wait(lambda: [row[-1] for row in of("#measured tr")] == forks, "what was measured is shown")
    charges = [
        [group.group or "all", one.item, f"{one.units:f}", str(one.lines), f"{one.amount:f}", one.currency]
        for group in told.groups
        for one in group.charges
    ]
    assert {one[1] for one in charges} == {"list/vcpu-hour", "list/gib-hour", "list/fork"}, charges
    page.wait(lambda: of("#bill tr") == charges, "what it comes to is shown")
    assert told.totals == {"EUR": sum(Decimal(one[4]) for one in charges)}, told
    assert f"Together {told.totals['EUR']:f} EUR." in page.text("#usage-total")
    assert told.period in page.text("#h-usage") and page.all("#usage")[0].is_displayed()


def main() -> None:
    url, pictures = sys.argv[1], Path(sys.argv[2])
    key = os.environ["BROOD_KEY"]
    client = Client(url, key)
    client.create_template("counter", guest="bare", memory_mib=64)
    driver = start()
    try:
        page = Page(driver)
        driver.set_page_load_timeout(PATIENCE)
        driver.get(f"{url}/ui")
        driver.execute_script(
            "window.mark = 'the same page'; window.violated = [];"
            "document.addEventListener('securitypolicyviolation', (one) => window.violated.push(one.violatedDirective))"
        )
        check_contrast(page)
        page.scheme("light")
        page.enter("brood_of_nobody")
        page.wait(lambda: "not known" in page.text("#enter-problem"), "a wrong key is refused in words")
        page.enter(key)
        page.wait(page.is_live, "a good key opens the room")
        assert page.nodes() == 0 and page.all("#empty")[0].is_displayed()

        mother = client.create("counter", name="mother")
        page.wait(lambda: page.nodes() == 1, "a machine appears by itself")
        daughters = mother.fork(3, labels={"note": HOSTILE})
        page.wait(lambda: page.nodes() == 4, "a fork appears by itself")
        below = f"[data-machine='{mother.id}'] > ul > [data-machine]"
        assert len(page.all(below)) == 3, "daughters stand below their mother"
        grand = daughters[0].fork(2, labels={"team": "a"})
        page.wait(lambda: page.nodes() == 6, "a fork of a daughter appears")
        point = daughters[1].checkpoint()
        page.wait(lambda: page.nodes() == 7, "a checkpoint appears")
        daughters[2].pause()
        page.wait(lambda: page.text("#t-paused") == "1", "a pause is seen")

        labels = [one.text for one in page.all("#forest .label")]
        shown = driver.execute_script("return [...document.querySelectorAll('#forest .label')].map((one) => one.textContent)")
        # A checkpoint has the labels of whom it was taken of.
        assert shown.count(f"note={HOSTILE}") == 4, (labels, shown)
        assert driver.execute_script("return window.broken") is None, "a label was run"
        assert driver.execute_script("return document.querySelectorAll('main script, main img').length") == 0

        page.wait(lambda: page.text("#t-private") != "–", "costs are counted")
        drawn = "return [...document.querySelectorAll('#forest .private')].filter((one) => one.offsetWidth > 0).length"
        page.wait(lambda: driver.execute_script(drawn) >= 6, "bars are drawn")

        try:
            mother.fork(64)
            raise AssertionError("the policy of this test denies it")
        except Denied as denied:
            words = denied.message
        page.wait(lambda: words in page.text("#decisions .denied"), "a denial appears with its reason")
        page.wait(lambda: page.text("#t-denied") == "1", "it is counted")
        page.wait(lambda: "fork.refused" in page.text("#events"), "so does its event")
        check_usage(page, client)
        check_shape(page)
        for scheme in SCHEMES:
            page.scheme(scheme)
            driver.save_screenshot(str(pictures / f"ui-{scheme}.png"))
        page.scheme("light")
        driver.find_element(By.ID, "usage").screenshot(str(pictures / "ui-usage.png"))
        driver.set_window_size(420, 900)
        page.scheme("light")
        over = driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        driver.save_screenshot(str(pictures / "ui-narrow.png"))
        assert over <= 0, f"a narrow window is scrolled sideways, by {over} pixels"

        grand[0].kill()
        page.wait(lambda: "ended" in page.text(f"[data-machine='{grand[0].id}'] .state") or page.nodes() == 6, "an end is seen")
        page.wait(lambda: not page.all(f"[data-machine='{grand[0].id}']"), "who has ended leaves after a while")
        assert driver.execute_script("return window.mark") == "the same page", "nothing of this took a reload"
        assert driver.execute_script("return window.violated") == []

        driver.refresh()
        page.wait(page.is_live, "the key is kept in the tab")
        page.wait(lambda: page.nodes() == 6, "and all is there again")
        driver.find_element(By.ID, "leave").click()
        page.wait(lambda: page.all("#door")[0].is_displayed(), "the key is forgotten")
        assert driver.execute_script("return sessionStorage.length + localStorage.length") == 0
        assert page.nodes() == 0 and key not in driver.page_source

        asked = driver.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
        assert asked and all(one.startswith(url + "/") for one in asked), asked
        errors = [one["message"] for one in driver.get_log("browser") if one["level"] == "SEVERE"]
        # What a wrong key is answered with.
        odd = [one for one in errors if " 401 " not in one]
        assert not odd, odd
        point.kill()
        mother.kill(cascade=True)
        print("all of it was seen")
    finally:
        driver.quit()


main()
