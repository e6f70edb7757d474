"""The page of legion-server in Debian's Chromium: what a user sees and does, and what the page must not do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import urlsplit

import pytest
import requests
from harness import interpreter
from test_scoring import SERVER, legion

CHROMIUM = shutil.which("chromium")
DRIVER = os.environ.get("LEGION_TEST_PAGE")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER, reason="LEGION_SERVER is not set: cargo xtask test runs this"),
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium: cargo xtask setup installs it on Debian"),
    pytest.mark.skipif(not DRIVER, reason="LEGION_TEST_PAGE is not set: toolchains/mlflow/test sets it"),
]
# An environment of its own has the driver. MLflow would write what comes with it into the requirements of models.
sys.path.append(DRIVER or "")
if CHROMIUM and DRIVER:
    from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

HOSTILE = "<img src=x onerror=alert(1)>"
TRAIN = """
import sys
import mlflow, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

out, hostile = sys.argv[1:]
random = np.random.default_rng(0)
x = pd.DataFrame({"a": random.normal(size=50), "b": random.integers(0, 9, 50), "c": random.normal(size=50) > 0})
y = pd.Series(2 * x["a"] + x["b"], name="quality")
model = LinearRegression().fit(x, y)
mlflow.sklearn.save_model(model, out + "/table", signature=infer_signature(x, y), input_example=x.head(4))
bare = LinearRegression().fit(x.to_numpy(dtype=float), x["a"])
mlflow.sklearn.save_model(bare, out + "/tensor", signature=infer_signature(x.to_numpy(dtype=float)))


class Words(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        texts = model_input["text"] * (params or {}).get("times", 1)
        return pd.DataFrame({"text": texts, "big": model_input["big"], "tags": model_input["tags"].map(len)})


example = pd.DataFrame({"text": [hostile], "big": [2**53 + 1], "tags": [["a", "b"]], hostile: [None]})
at = pd.DataFrame({"at": pd.to_datetime(["2026-01-02T03:04:05"])})
example = pd.concat([example, at], axis=1)
signature = infer_signature(example, Words().predict(None, example), {"times": 1})
mlflow.pyfunc.save_model(
    out + "/words", python_model=Words(), signature=signature, input_example=example, pip_requirements=[]
)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    subprocess.run([interpreter("3"), "-c", TRAIN, str(directory), HOSTILE], check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def table(models: Path) -> Iterator[str]:
    with legion(models / "table", interpreter("3"), models / "table.log") as url:
        yield url


@pytest.fixture(scope="module")
def words(models: Path) -> Iterator[str]:
    with legion(models / "words", interpreter("3"), models / "words.log") as url:
        yield url


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM)
    yield browser
    browser.close()


@contextmanager
def opened(browser: Browser, url: str, strict: bool = True, **options: Any) -> Iterator[Page]:
    """Opens the page. Fails if it complained, broke its policy, or called another host."""
    context = browser.new_context(**options)
    page, complaints = context.new_page(), []
    page.set_default_timeout(20_000)
    # Chromium reports each answer with an error status, and those are expected.
    page.on("console", lambda m: m.text.startswith("Failed to load resource") or complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    called = []
    page.on("request", lambda request: called.append(request.url))
    page.goto(url)
    expect(page.locator("#ready")).to_have_text("Ready")
    yield page
    hosts = {urlsplit(address).netloc for address in called if not address.startswith("data:")}
    context.close()
    if strict:
        assert not complaints
        assert hosts == {urlsplit(url).netloc}


@contextmanager
def gateway(url: str) -> Iterator[str]:
    """Serves a server below /wine, as a gateway does that removes the prefix."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            assert self.path.startswith("/wine/"), self.path
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {name: value for name, value in self.headers.items() if name in ("Accept", "Content-Type")}
            answer = requests.request(self.command, url + self.path[len("/wine") :], data=body, headers=kept)
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = forward

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/wine/"
        server.shutdown()


def answer(page: Page, status: int = 200) -> Any:
    """Waits for an answer and returns its JSON."""
    expect(page.locator("#answer .facts")).to_contain_text(str(status))
    return json.loads(page.locator("#answer .raw pre").text_content())


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id")


def tab_to(page: Page, id: str) -> list[str]:
    """Presses Tab until an element has the focus. Returns the ids on the way."""
    passed = []
    while focused(page) != id:
        page.keyboard.press("Tab")
        passed.append(focused(page))
        assert len(passed) < 60, passed
    return passed


def rows(*data: list[Any]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": ["a", "b", "c"], "data": list(data)}}


def predictions(url: str, request: Any) -> Any:
    return requests.post(f"{url}/invocations", json=request, timeout=60).json()


def run_curl(page: Page) -> Any:
    page.locator("#tab-curl").click()
    command = page.locator("#code").text_content()
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)["predictions"]


def run_python(page: Page) -> Any:
    page.locator("#tab-python").click()
    program = page.locator("#code").text_content().replace("print(", "print(__import__('json').dumps(") + ")"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def run_javascript(page: Page) -> Any:
    page.locator("#tab-javascript").click()
    program = page.locator("#code").text_content().replace("console.log(", "return JSON.stringify(")
    # Chromium's numbers cannot hold the answer.
    program = program.replace("(await response.json()).predictions", "await response.text()")
    return json.loads(json.loads(page.evaluate(f"async () => {{ {program} }}")))["predictions"]


def test_a_value_is_changed_and_sent_with_the_keyboard_alone(browser: Browser, table: str) -> None:
    sample = requests.get(f"{table}/page.json").json()["sample"]["request"]["dataframe_split"]["data"]
    with gateway(table) as url, opened(browser, url) as page:
        expect(page.locator("h1")).to_have_text("table")
        tab_to(page, "cell-0-0")
        page.keyboard.press("Control+A")
        page.keyboard.type("7.25")
        page.keyboard.press("Enter")
        wanted = predictions(table, rows([7.25, *sample[0][1:]]))
        assert answer(page) == wanted
        expect(page.locator("#answer .value strong")).to_have_text(repr(wanted["predictions"][0]))
        expect(page.locator("#answer .latency")).to_contain_text(" ms")
        expect(page.locator("#answer .id")).to_have_text(re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}"))
        expect(page.locator("#summary")).to_contain_text(repr(wanted["predictions"][0]))
        # The code is for this request, and for the address of the gateway.
        assert run_curl(page) == run_python(page) == wanted["predictions"]
        assert url in page.locator("#code").text_content()

        page.locator("#cell-0-0").focus()
        passed = tab_to(page, "copy")
        assert [id for id in passed if id in ("predict", "add", "reset")] == ["predict", "add", "reset"]
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("ArrowRight")
        assert focused(page) == "tab-javascript"
        expect(page.locator("#code")).to_contain_text("await fetch(")
        page.keyboard.press("ArrowRight")
        assert focused(page) == "tab-curl", "the arrows go around"
        expect(page.locator("#code")).to_contain_text("curl 'http")


def test_what_is_focused_is_visible_and_every_control_has_a_name(browser: Browser, words: str) -> None:
    with opened(browser, words) as page:
        # A radio button itself is not drawn, but the text after it.
        outline = """() => { const node = document.activeElement;
            return getComputedStyle(node.type === "radio" ? node.nextSibling : node).outlineStyle }"""
        while focused(page) != "code":
            page.keyboard.press("Tab")
            assert page.evaluate(outline) == "solid", focused(page)
        unnamed = """[...document.querySelectorAll('input, select, textarea, button')].filter(
            node => !(node.labels?.[0] ?? node).textContent.trim() && !node.ariaLabel).map(node => node.outerHTML)"""
        assert page.evaluate(unnamed) == []
        assert page.get_by_label("text").count() == 1


def test_a_wrong_value_marks_its_field(browser: Browser, table: str) -> None:
    with opened(browser, table) as page:
        page.locator("#add").click()
        field = page.locator("#cell-1-1")
        field.fill("")
        field.press("Enter")
        assert answer(page, 400)["message"].startswith("dataframe_split.data[1][1]: ")
        expect(field).to_be_focused()
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#cell-1-1-problem")).to_have_text('column "b" is of type long, and the value is null')
        assert page.locator("[aria-invalid]").count() == 1
        field.press("4")
        expect(field).not_to_have_attribute("aria-invalid", "true")
        field.press("Enter")
        assert len(answer(page)["predictions"]) == 2
        assert page.locator("#answer tbody tr").count() == 2
        # The browser has no value for this text, so nothing is sent.
        field.press_sequentially("e")
        field.press("Enter")
        expect(page.locator("#cell-1-1-problem")).to_have_text("This is not a value of type long.")


def test_the_same_request_is_a_form_and_json(browser: Browser, table: str) -> None:
    sample = requests.get(f"{table}/page.json").json()["sample"]["request"]["dataframe_split"]["data"]
    with opened(browser, table) as page:
        page.locator("#add").click()
        expect(page.locator("#cell-1-0")).to_be_focused()
        page.get_by_role("radio", name="JSON").check()
        text = page.locator("#json")
        assert json.loads(text.input_value()) == rows(*sample[:2]), "the second row is that of the sample"
        text.fill("[1, ")
        page.locator("#predict").click()
        assert answer(page, 400)["message"].startswith("body: is not JSON")
        expect(text).to_have_attribute("aria-invalid", "true")
        page.get_by_role("radio", name="Form").click()
        expect(page.locator("#note")).to_contain_text("This is not JSON")
        expect(text).to_be_visible()
        request = {"dataframe_records": [{"c": True, "b": 2, "a": 0.5}, {"a": 1.5, "b": 3, "c": False}]}
        text.fill(json.dumps(request))
        text.press("Control+Enter")
        assert answer(page) == predictions(table, request)
        page.get_by_role("radio", name="Form").click()
        expect(page.locator(".row legend")).to_have_text(["Row 1", "Row 2"])
        page.get_by_role("button", name="Remove row 1").click()
        page.locator("#predict").click()
        expect(page.locator("#answer .value")).to_be_visible()
        assert answer(page) == predictions(table, rows([1.5, 3, False]))
        page.locator("#reset").click()
        assert page.locator(".row .field input").first.input_value() == str(sample[0][0])


def test_texts_and_large_numbers_reach_the_model_unchanged(browser: Browser, words: str) -> None:
    with opened(browser, words) as page:
        page.locator("#predict").click()
        assert answer(page)["predictions"] == [{"text": HOSTILE, "big": 2**53 + 1, "tags": 2}]
        assert page.locator("img").count() == 0
        expect(page.locator("#answer td").nth(1)).to_have_text(HOSTILE)
        expect(page.locator("#answer td").nth(2)).to_have_text(str(2**53 + 1))
        expect(page.get_by_label(HOSTILE)).to_have_count(1)
        assert page.locator("#cell-0-4").input_value() == "2026-01-02T03:04:05"
        text = """it's "$HOME" `x` \\n \\ ${x} ä 😀 %s"""
        page.locator("#cell-0-0").fill(text)
        page.locator("#cell-0-2").fill('["a", "\\u0000", "b"]')
        page.locator("#param-0").fill("2")
        for view in ("Form", "JSON"):
            page.get_by_role("radio", name=view).check()
            page.locator("#predict").click()
            wanted = [{"text": text * 2, "big": 2**53 + 1, "tags": 3}]
            expect(page.locator("#answer td").nth(1)).to_have_text(text * 2)
            assert answer(page)["predictions"] == wanted
            assert run_curl(page) == run_python(page) == run_javascript(page) == wanted


def test_a_tensor_is_edited_as_json(browser: Browser, models: Path) -> None:
    with legion(models / "tensor", interpreter("3"), models / "tensor.log") as url, opened(browser, url) as page:
        expect(page.locator("#switch")).to_be_hidden()
        assert json.loads(page.locator("#json").input_value()) == {"inputs": [[0, 0, 0]]}
        request = {"inputs": [[0.5, 1.0, 0.0], [1.5, 2.0, 1.0]]}
        page.locator("#json").fill(json.dumps(request))
        page.locator("#json").press("Control+Enter")
        assert answer(page) == predictions(url, request)
        assert run_curl(page) == run_python(page) == run_javascript(page) == answer(page)["predictions"]
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator("#copy").click()
        expect(page.locator("#copied")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == page.locator("#code").text_content()


def test_the_time_of_the_server_is_shown(browser: Browser, table: str) -> None:
    with opened(browser, table) as page:

        def timed(route: Any) -> None:
            response = route.fetch()
            header = {"Server-Timing": 'queue;dur=0.25, m;desc="Model";dur=12'}
            route.fulfill(response=response, headers={**response.headers, **header})

        page.route("**/invocations", timed)
        page.locator("#predict").click()
        expect(page.locator("#answer .facts")).to_contain_text("Server: queue0.25 ms")
        expect(page.locator("#answer .facts")).to_contain_text("Server: Model12.0 ms")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_needs_no_scrolling_sideways(browser: Browser, words: str, scheme: str) -> None:
    with opened(browser, words, viewport={"width": 360, "height": 740}, color_scheme=scheme) as page:
        red = int(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))
        assert red < 64 if scheme == "dark" else red > 192
        for text, status in ("x" * 300, 200), ("x", 400):
            page.locator("#cell-0-0").fill(text)
            page.locator("#cell-0-1").fill("" if status == 400 else "1")
            page.locator("#predict").click()
            answer(page, status)
            assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_policy_forbids_scripts_of_others_and_clients_without_html_get_json(browser: Browser, table: str) -> None:
    assert requests.get(table).json() == {"status": "alive"}
    headers = requests.get(table, headers={"Accept": "text/html"}).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    with opened(browser, table, strict=False) as page:
        violated = page.evaluate("""() => new Promise(done => {
            document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
            const image = document.createElement("img");
            image.src = "http://192.0.2.1/";
        })""")
        assert violated == "img-src"
        script = "() => { try { document.body.innerHTML = '<b>' } catch (error) { return error.message } }"
        assert "TrustedHTML" in page.evaluate(script)
