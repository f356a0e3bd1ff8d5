#!/usr/bin/env python3
"""Opens the pages that locus writes in headless Chromium and checks them: browser.py RUN [--locus PATH] [--shots DIR]

RUN is the folder of a finished run, of which report.html is opened; the pages of `locus inspect`, `locus discover` and
`locus circuit evaluate` are made from the organism. Every page is looked at

- at 390, 1280 and 1920 pixels, light and dark: no error on the console, nothing wider than the screen, nothing cut off,
  no table that has to be scrolled sideways, and no finding of axe-core;
- in print: nothing wider than the paper;
- without scripts: every table and drawing is there.

Sorting by every column, filtering by every task and the filters of a circuit must do what they say, question, answer
and verdicts must fit on the first screen, and no page may be larger than LARGEST says. Prints a line per view and exits
with 1 when something was found. Needs Python's standard library, Chromium and, once, axe-core from the npm registry,
which is kept in the target folder.
"""
import argparse, base64, fcntl, hashlib, itertools, json, os, pathlib, shutil, subprocess, sys, tarfile, tempfile, time
import urllib.request

AXE = "https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz"
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
# Bytes.
LARGEST = {"report": 700_000, "inspect": 300_000, "discover": 300_000, "evaluate": 300_000}
SCREENS = [(390, 844), (1280, 800), (1920, 1080)]
# A4 landscape between margins of 12 mm, in pixels of 1/96 inch.
PAPER = (1032, 703)
ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]

# What can be seen to be wrong in any state of a page. `strict`: nothing may have to be scrolled sideways.
LAYOUT = r"""(strict) => {
  const found = [];
  const name = (one) => one.getAttribute("aria-label") || one.id || `${one.localName}.${one.className}`;
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) {
    const widest = [...document.body.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5);
    found.push(`the page is ${wide} px wider than the screen: ${widest.slice(0, 3).map(name)}`);
  }
  for (const one of document.body.querySelectorAll("*")) {
    if (!(one instanceof HTMLElement) || one.scrollWidth <= one.clientWidth + 1 || one.clientWidth === 0) continue;
    const overflow = getComputedStyle(one).overflowX;
    if (overflow === "hidden" || overflow === "clip") found.push(`cut off: ${name(one)}, ${one.scrollWidth} px in ${one.clientWidth}`);
    const table = one.querySelector(":scope > table");
    if (table && (strict || table.matches(".data"))) found.push(`to be scrolled: ${name(one)}, ${one.scrollWidth} px in ${one.clientWidth}`);
  }
  for (const text of document.querySelectorAll("svg text")) {
    const [inner, outer] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
    if (inner.width === 0 || outer.width === 0) continue;
    const past = Math.max(outer.left - inner.left, inner.right - outer.right, outer.top - inner.top, inner.bottom - outer.bottom);
    if (past > 2) found.push(`${name(text.ownerSVGElement)}: "${text.textContent}" leaves its drawing by ${past.toFixed(0)} px`);
  }
  return found;
}"""

# Sorting by every column, in both directions; every group of rows keeps its rows and its heading.
SORTING = r"""() => {
  const found = [];
  const number = (text) => parseFloat(text.replace(/[,\u00a0]/g, "").replace(/\u2212/g, "-"));
  for (const table of document.querySelectorAll("table.data")) {
    const bodies = [...table.tBodies];
    const rows = (body) => [...body.rows].filter((row) => !row.classList.contains("group"));
    const texts = (body, column) => rows(body).map((row) => row.cells[column].textContent.trim());
    const name = table.closest("[aria-label]").getAttribute("aria-label");
    const contents = bodies.map((body) => texts(body, 0).concat(rows(body).map((row) => row.textContent)).sort().join("|"));
    const groups = bodies.map((body) => body.querySelector(".group"));
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return found.push(`${name}: column ${column + 1} cannot be sorted`);
      for (const direction of ["ascending", "descending"]) {
        button.click();
        if (head.getAttribute("aria-sort") !== direction) found.push(`${name}: column ${column + 1} is not said to be ${direction}`);
        for (const body of bodies) {
          const shown = texts(body, column);
          const values = shown.filter((text) => text !== "\u2013");
          if (shown.slice(0, values.length).includes("\u2013")) found.push(`${name}: column ${column + 1}: what is missing is not last`);
          const numbers = values.map(number);
          if (!values.length || numbers.some(Number.isNaN)) continue;
          const wanted = [...numbers].sort((a, b) => (direction === "ascending" ? a - b : b - a));
          if (wanted.join() !== numbers.join()) found.push(`${name}: column ${column + 1} is not ${direction}: ${numbers.slice(0, 5)}`);
        }
      }
    });
    bodies.forEach((body, i) => {
      if (texts(body, 0).concat(rows(body).map((row) => row.textContent)).sort().join("|") !== contents[i]) found.push(`${name}: sorting changes the rows`);
      if (groups[i] && body.rows[0] !== groups[i]) found.push(`${name}: sorting moves the heading of a group`);
    });
  }
  return found;
}"""

# The filter shows the rows of one task and those that belong to none, and gives the others back.
FILTER = r"""() => {
  const found = [];
  const select = document.querySelector("#task-filter");
  if (!select) return ["there is no filter by task"];
  const names = [...select.options].map((option) => option.value).filter((value) => value);
  const rows = [...document.querySelectorAll("tr[data-t]")];
  const choose = (value) => {
    select.value = value;
    select.dispatchEvent(new Event("change"));
    return rows.filter((row) => row.getClientRects().length || row.closest("details:not([open])") && !row.hidden);
  };
  for (const name of names) {
    const shown = choose(name);
    const strange = shown.filter((row) => row.dataset.t.split(" ").some((task) => names.includes(task)) && !row.dataset.t.split(" ").includes(name));
    if (strange.length) found.push(`filter by ${name}: ${strange.length} rows of other tasks`);
    if (rows.filter((row) => row.dataset.t.split(" ").includes(name)).some((row) => !shown.includes(row))) found.push(`filter by ${name} hides its own rows`);
    if (shown.length === rows.length) found.push(`filter by ${name} hides nothing`);
  }
  if (choose("").length !== rows.length) found.push("the filter does not give the rows back");
  return found;
}"""

# Table and drawing of a circuit show the same edges; threshold, kind of input, layers and a pinned node narrow them.
CIRCUIT = r"""() => {
  const found = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const rows = () => all("#edges tbody tr").filter((row) => !row.hidden);
  const ends = (row) => [row.cells[0].textContent, row.cells[1].textContent.replace(/<.>$/, "")];
  const whole = rows().length;
  const expect = (what, holds, fewer = true) => {
    if (rows().length !== all("#drawing path.edge:not(.off)").length) found.push(`${what}: table and drawing differ`);
    if (!rows().every(holds)) found.push(`${what}: edges that do not belong here`);
    if (fewer !== rows().length < whole) found.push(`${what}: ${rows().length} of ${whole} edges`);
  };
  const put = (id, value) => {
    const control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event("input"));
  };
  const reset = () => document.getElementById("reset").click();
  const { edges } = JSON.parse(document.getElementById("data").textContent);
  expect("whole circuit", (row) => `${row.cells[0].textContent}->${row.cells[1].textContent}` in edges, false);
  put("least", document.getElementById("least").max);
  expect("largest score", (row) => row === rows()[0]);
  reset();
  all("input[name=reads]")[0].click();
  expect("without queries", (row) => !row.cells[1].textContent.endsWith("<q>"));
  reset();
  const last = document.getElementById("from").options.length - 1;
  put("from", String(last));
  expect("last layer", (row) => ends(row).every((name) => !/^[am]\d/.test(name) || name.startsWith(`a${last}.`) || name === `m${last}`));
  reset();
  const pinned = ends(rows()[0])[0];
  const node = all("#drawing .node").find((one) => one.dataset.name === pinned);
  node.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  expect(`pinned ${pinned}`, (row) => ends(row).includes(pinned));
  reset();
  expect("all again", () => true, false);
  return found;
}"""

# What a reader sees before scrolling.
FIRST_SCREEN = r"""() => ["h1", ".answer", "table.verdicts"].flatMap((one) => {
  const bottom = document.querySelector(one).getBoundingClientRect().bottom;
  return bottom > innerHeight ? [`${one} ends at ${bottom.toFixed(0)} px of a screen of ${innerHeight}`] : [];
})"""

# With every fold open, tables and drawings take room.
CONTENT = r"""() => [...document.querySelectorAll("table, table tr:not([hidden]), svg")].filter((one) => {
  const box = one.getBoundingClientRect();
  return !(box.width > 0 && box.height > 0) && getComputedStyle(one.closest("thead, td, th") || one).display !== "none";
}).map((one) => `not to be seen: ${one.localName} ${one.textContent.trim().slice(0, 40)}`)"""

OPEN = """() => { for (const fold of document.querySelectorAll("details")) fold.open = true; }"""

# axe-core takes minutes for thousands of rows and marks: of those that differ in nothing but text and numbers, one is left.
ALIKE = r"""() => {
  for (const parent of document.querySelectorAll("table, svg")) {
    const seen = new Set();
    for (const one of parent.querySelectorAll("tbody > tr, svg > *")) {
      const kind = [one, ...one.querySelectorAll("*")].map((part) => `${part.localName}.${part.getAttribute("class")}`).join();
      if (seen.has(kind)) one.remove();
      seen.add(kind);
    }
  }
}"""

AXE_RUN = r"""() => axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map(({ id, nodes }) =>
  `axe-core, ${id}: ${nodes.length} times, first ${nodes[0].target}: ${nodes[0].failureSummary.replace(/\s+/g, " ")}`))"""


class Browser:
    """Chromium over the DevTools protocol: messages of JSON that end in a zero byte, on file descriptors 3 and 4."""

    def __init__(self, program, profile):
        to_browser, self.out = os.pipe()
        self.into, from_browser = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
                 "--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}",
                 "--remote-debugging-pipe", "about:blank"]

        def wire():
            # Copies first: 3 and 4 may be ends of these very pipes.
            a, b = fcntl.fcntl(to_browser, fcntl.F_DUPFD, 10), fcntl.fcntl(from_browser, fcntl.F_DUPFD, 10)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self.process = subprocess.Popen([program, *flags], preexec_fn=wire, close_fds=False, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.numbers, self.events, self.session = b"", itertools.count(1), [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log"]:
            self.call(f"{domain}.enable")

    def close(self):
        self.process.terminate()
        self.process.wait()

    def message(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.into, 1 << 20)
            if not piece:
                sys.exit("browser: Chromium ended")
            self.buffer += piece
        one, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, **params):
        number = next(self.numbers)
        request = {"id": number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        text = json.dumps(request).encode() + b"\0"
        while text:
            text = text[os.write(self.out, text):]
        while (answer := self.message()).get("id") != number:
            self.events.append(answer)
        if "error" in answer:
            sys.exit(f"browser: {method}: {answer['error']['message']}")
        return answer["result"]

    def run(self, function, *arguments):
        """Result of a JavaScript function in the page."""
        code = f"({function})({', '.join(map(json.dumps, arguments))})"
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            sys.exit(f"browser: {answer['exceptionDetails']['exception'].get('description')} in {function[:80]}")
        return answer["result"].get("value")

    def open(self, page, size, dark=False, media="screen", scripts=True):
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        width, height = size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())

    def complaints(self):
        """Errors and warnings since the page was opened."""
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append("exception: " + details.get("exception", {}).get("description", details["text"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append("console: " + " ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append("log: " + params["entry"]["text"])
        return found

    def shot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


def check(browser, name, page, axe, shots):
    """Looks at a page in every way; the number of findings."""
    total = 0

    def say(view, found, remark=""):
        nonlocal total
        total += len(found)
        print(f"{name:9} {view:14} {'ok' if not found else str(len(found)) + ' found'}{remark}", flush=True)
        for one in found:
            print(f"    {one}")

    size = page.stat().st_size
    say("size", [f"more than {LARGEST[name]} bytes"] if size > LARGEST[name] else [], f", {size} bytes")
    is_report = name == "report"
    for width, height in SCREENS:
        for dark in [False, True]:
            view = f"{width} {'dark' if dark else 'light'}"
            browser.open(page, (width, height), dark)
            if shots:
                browser.shot(shots / f"{name}-{view.replace(' ', '-')}.png")
            found = browser.run(FIRST_SCREEN) if is_report and width < 1900 else []
            if is_report and not dark:
                found += browser.run(FILTER)
            if name in ("discover", "evaluate") and not dark:
                found += browser.run(CIRCUIT)
            browser.run(OPEN)
            found += browser.run(LAYOUT, width >= 1280)
            if is_report and not dark:
                found += browser.run(SORTING)
            found += browser.complaints()
            remark = ""
            if axe:
                browser.run(ALIKE)
                browser.call("Runtime.evaluate", expression=axe)
                started = time.monotonic()
                found += browser.run(AXE_RUN)
                remark = f" (axe-core {time.monotonic() - started:.1f} s)"
            say(view, found, remark)
    browser.open(page, PAPER, media="print")
    say("print", browser.run(LAYOUT, True) + browser.run(CONTENT) + browser.complaints())
    if shots:
        browser.shot(shots / f"{name}-print.png")
    browser.open(page, (1280, 800), scripts=False)
    browser.run(OPEN)
    say("no scripts", browser.run(CONTENT) + browser.run(LAYOUT, True))
    return total


def chromium(install):
    """Path of Chromium, installed from Debian's packages when it is missing and that is wanted."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found or not install:
        return found or sys.exit(f"browser: no {NAMES[0]} in PATH; install it, name it in CHROMIUM, or say --install")
    apt = ["apt-get"] if os.geteuid() == 0 else ["sudo", "apt-get"]
    package = ["install", "-y", "--no-install-recommends", "chromium"]
    # Old lists name packages that are gone, new ones take a minute: the lists are brought up to date only when needed.
    if subprocess.call([*apt, *package]) and (subprocess.call([*apt, "update"]) or subprocess.call([*apt, *package])):
        sys.exit("browser: chromium could not be installed")
    return chromium(False)


def axe_core(target):
    """Source of axe-core, from the target folder or the npm registry."""
    digest = lambda data: base64.b64encode(hashlib.sha512(data).digest()).decode()
    kept = target / "browser" / pathlib.PurePosixPath(AXE).name
    if not kept.exists() or digest(kept.read_bytes()) != AXE_SHA512:
        try:
            with urllib.request.urlopen(AXE, timeout=60) as answer:
                data = answer.read()
        except OSError as error:
            sys.exit(f"browser: {AXE}: {error}; say --without-axe to go on without it")
        if digest(data) != AXE_SHA512:
            sys.exit(f"browser: {AXE}: SHA-512 {digest(data)}; expected {AXE_SHA512}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(data)
    with tarfile.open(kept) as packed:
        return packed.extractfile("package/axe.min.js").read().decode()


def make(locus, folder):
    """Pages of the commands that need no run, from the organism."""
    def call(*arguments):
        done = subprocess.run([locus, "--quiet", *arguments], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"browser: locus {' '.join(arguments)}: {done.stderr.strip()}")

    pages = {name: folder / f"{name}.html" for name in ["inspect", "discover", "evaluate"]}
    call("inspect", "A monarch is a kind of", "--out", str(pages["inspect"]))
    circuit = ["--task", "hierarchy", "--method", "eap", "--edges", "400"]
    call("discover", *circuit, "--out", str(pages["discover"]))
    call("discover", *circuit, "--out", str(folder / "circuit.json"))
    brief = ["--draws", "1", "--removals", "0"]
    call("circuit", "evaluate", "--circuit", str(folder / "circuit.json"), "--task", "hierarchy", *brief,
         "--out", str(folder / "evaluation.json"), "--html", str(pages["evaluate"]))
    return pages


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=pathlib.Path, help="folder of a finished run")
    arguments.add_argument("--locus", default=str(target / "debug" / "locus"), help="the program [default: that of the dev build]")
    arguments.add_argument("--shots", type=pathlib.Path, help="folder for a picture of every view")
    arguments.add_argument("--install", action="store_true", help="install Chromium with apt-get when it is missing")
    arguments.add_argument("--without-axe", action="store_true", help="do without axe-core, which is downloaded once")
    arguments = arguments.parse_args()
    if not (arguments.run / "report.html").is_file():
        sys.exit(f"browser: {arguments.run}/report.html: no such file; expected the folder of a finished run")
    program = chromium(arguments.install)
    axe = None if arguments.without_axe else axe_core(target)
    if arguments.shots:
        arguments.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        pages = {"report": arguments.run / "report.html", **make(arguments.locus, folder)}
        browser = Browser(program, folder / "profile")
        try:
            found = sum(check(browser, name, page, axe, arguments.shots) for name, page in pages.items())
        finally:
            browser.close()
    print(f"{found} findings on {len(pages)} pages in {time.monotonic() - START:.0f} s")
    sys.exit(found > 0)


START = time.monotonic()
main()
