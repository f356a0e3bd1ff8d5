#!/usr/bin/env python3
"""Opens a page in headless Chromium and checks it: browser.py PAGE.html [--axe axe.min.js] [--shots DIR]

At 390, 1280 and 1920 pixels, light and dark: no error on the console, nothing wider than the screen, no frame that has
to be scrolled sideways, sorting and the filter by task work, and, with --axe, axe-core finds nothing. Prints a line per
view; exits 1 when something was found. The page is opened in a frame, because windows cannot be as narrow as a phone.
"""
import argparse, html, json, pathlib, re, subprocess, sys, tempfile

PROBE = r"""
addEventListener("load", async () => {
  const found = [...errors];
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) found.push(`the page is ${wide} px wider than the screen`);
  for (const one of document.querySelectorAll("details")) one.open = true;
  for (const one of document.querySelectorAll(".scroll")) {
    if (one.scrollWidth > one.clientWidth + 1) found.push(`${one.getAttribute("aria-label")}: ${one.scrollWidth} px in ${one.clientWidth}`);
  }
  const button = document.querySelector("table.data button.sort");
  const cells = () => [...button.closest("table").tBodies[0].querySelectorAll("tr:not(.group)")].map((row) => row.cells[0].textContent);
  if (button) {
    const before = cells();
    button.click();
    const up = cells();
    button.click();
    const down = cells();
    if (up.join() !== [...up].sort().join() && up.join() === before.join() && down.join() === before.join()) found.push("sorting changes nothing");
    if (up.length !== before.length) found.push("sorting loses rows");
  } else if (document.querySelector("table.data")) found.push("no column can be sorted");
  const filter = document.querySelector("#task-filter");
  if (filter) {
    const hidden = () => document.querySelectorAll("tr[hidden]").length;
    filter.value = filter.options[1].value;
    filter.dispatchEvent(new Event("change"));
    if (hidden() === 0) found.push("the filter hides nothing");
    filter.value = "";
    filter.dispatchEvent(new Event("change"));
    if (hidden() !== 0) found.push("the filter keeps rows hidden");
  }
  if (window.axe) {
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
    for (const { id, nodes } of violations) found.push(`axe ${id}: ${nodes.length} x ${nodes[0].target} ${nodes[0].failureSummary}`);
  }
  parent.postMessage(JSON.stringify({ height: document.documentElement.scrollHeight, found }), "*");
});
"""
EARLY = 'window.errors = []; addEventListener("error", (event) => errors.push(event.message));' \
        'addEventListener("securitypolicyviolation", (event) => errors.push("policy: " + event.violatedDirective));'
FRAME = """<!DOCTYPE html><body style="margin:0"><iframe src="page.html" style="width:{width}px;height:{height}px;border:0"></iframe>
<script>addEventListener("message", (event) => {{ const out = document.createElement("pre"); out.id = "out";
out.textContent = event.data; document.body.append(out); }});</script></body>"""


def chromium(folder, width, height, dark, *arguments):
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files",
               f"--user-data-dir={folder}/profile", f"--window-size={max(width, 500)},{height}", "--virtual-time-budget=30000",
               *(["--blink-settings=preferredColorScheme=0"] if dark else []), *arguments, f"file://{folder}/frame.html"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("page", type=pathlib.Path)
    arguments.add_argument("--axe", type=pathlib.Path)
    arguments.add_argument("--shots", type=pathlib.Path)
    arguments = arguments.parse_args()
    page = arguments.page.read_text()
    axe = f"<script>{arguments.axe.read_text()}</script>" if arguments.axe else ""
    bad = False
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        probed = page.replace("<style>", f"<script>{EARLY}</script><style>", 1)
        (folder / "page.html").write_text(probed.replace("</body>", f"{axe}<script>{PROBE}</script></body>"))
        for width, height in [(390, 844), (1280, 800), (1920, 1080)]:
            for dark in [False, True]:
                (folder / "frame.html").write_text(FRAME.format(width=width, height=height))
                out = re.search(r'<pre id="out">(.*?)</pre>', chromium(folder, width, height, dark, "--dump-dom"), re.S)
                result = json.loads(html.unescape(out[1])) if out else {"found": ["the page did not answer"]}
                bad |= bool(result["found"])
                name = f"{width}-{'dark' if dark else 'light'}"
                print(name, json.dumps(result, ensure_ascii=False))
                if arguments.shots:
                    arguments.shots.mkdir(exist_ok=True)
                    (folder / "page.html").rename(folder / "probed.html")
                    (folder / "page.html").write_text(page)
                    chromium(folder, width, height, dark, f"--screenshot={arguments.shots}/{name}.png")
                    (folder / "probed.html").replace(folder / "page.html")
    sys.exit(bad)


main()
