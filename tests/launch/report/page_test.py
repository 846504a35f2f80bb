"""report.html in headless Chromium, of a run with a slow rank and a hostile name: no complaint and no request at two
widths, in light, dark and print; every chart drawn; a click on a rank shows it. Leaves pictures beside the run.
page_test.py <longspan> <mpirun> <scratch folder>"""
import json
import os
import re
import shutil
import subprocess
import sys

from browser import Browser

NAME = "</script><script>window.hostile=1</script><img src=x onerror=window.hostile=1>"


def expect(condition, message):
    if not condition:
        sys.exit("FAILED: " + message)


def make_run(longspan, mpirun, scratch):
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    command = [mpirun, "-np", "4", longspan, "train", "name=run", f"output={scratch}"] + """runtime.device=CPU
        data.format=FIBONACCI model.vocab=16 model.layers=2 model.hidden=64 model.heads=4 model.kv_heads=2 model.ffn=128
        model.nsa.window=64 model.nsa.select=6 data.sequence_length=512 parallel.cp=2 parallel.selected_exchange=FETCH
        train.steps=12 optimizer.warmup_steps=2 train.eval_interval=6 train.eval_sequences=4 checkpoint.at_end=false profile.steps=5""".split() + [f"train.record_selection={scratch}/selection"]
    environment = dict(os.environ, LONGSPAN_PLANTED_FAULT="1:window:forward:sleep:0.5:1")
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    expect(said.returncode == 0, said.stdout + said.stderr)
    page = f"{scratch}/run/profile/report.html"
    expect(f"with charts: {page}" in said.stdout and os.path.exists(page), said.stdout)
    run = f"{scratch}/{NAME}"
    os.makedirs(os.path.dirname(run))
    os.rename(f"{scratch}/run", run)
    page, scaling = f"{scratch}/page.html", f"{scratch}/scaling.html"
    subprocess.run([longspan, "report", run, "--html", "--output", page], check=True, stdout=subprocess.DEVNULL)
    alone = command[3:] + ["name=alone", "parallel.cp=1"]
    said = subprocess.run(alone, capture_output=True, text=True)
    expect(said.returncode == 0, said.stdout + said.stderr)
    subprocess.run([longspan, "report", "--scaling", run, f"{scratch}/alone", "--html", "--output", scaling], check=True,
                   stdout=subprocess.DEVNULL)
    return page, scaling


def with_gpus(page):
    """The page, as of a run on GPUs, of which rank 1's was too hot."""
    def fill(found):
        data = json.loads(found[1])
        data["report"]["gpus"] = [
            {"rank": rank, "readings": 60, "sm_clock": 1095 if rank == 1 else 1980, "lowest": 1050, "most_sm_clock": 1980,
             "memory_clock": 2619, "power": 350, "power_limit": 700, "temperature": 88, "held": 0.9 if rank == 1 else 0,
             "held_by": "too hot" if rank == 1 else "", "corrected": rank, "uncorrected": 0} for rank in range(4)]
        data["clocks"] = [{"rank": gpu["rank"], "seconds": list(range(60)), "mhz": [gpu["sm_clock"]] * 60}
                          for gpu in data["report"]["gpus"]]
        data["report"]["stragglers"][0]["held_by"] = "too hot"
        return 'id="data">' + json.dumps(data).replace("<", "\\u003c") + "</script"

    text = open(page).read()
    page = page.replace("page.html", "gpus.html")
    open(page, "w").write(re.sub('id="data">(.*?)</script', fill, text, flags=re.S))
    return page


def check(browser, what):
    browser.settle()
    expect(not browser.errors, f"{what}: {browser.errors}")
    empty = browser.evaluate("""charts.map(chart => chart.canvas).filter(canvas => {
        const blank = document.createElement('canvas');
        [blank.width, blank.height] = [canvas.width, canvas.height];
        return canvas.toDataURL() === blank.toDataURL(); }).map(canvas => canvas.id)""")
    expect(empty == [], f"{what}: nothing is drawn in {empty}")
    wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
    expect(wide <= 0, f"{what}: the page is {wide} pixels wider than its window")


def main():
    longspan, mpirun, scratch = sys.argv[1:]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print("skipped: chromium is not installed")
        sys.exit(77)
    page, scaling = make_run(longspan, mpirun, scratch)
    browser = Browser(chromium)
    try:
        browser.size(1280, 900)
        browser.open(page)
        check(browser, "1280 wide")
        browser.screenshot(f"{scratch}/wide.png")
        expect(browser.evaluate("window.hostile") is None, "the run's name ran as a script")
        expect(browser.evaluate("document.getElementById('run').textContent").endswith(NAME), "the name is not shown")
        expect(browser.evaluate("document.images.length") == 0, "the run's name is an element")
        expect(browser.evaluate("charts.length") == 8, "charts are missing")
        expect(browser.evaluate("document.querySelectorAll('#heat tbody tr').length") == 4, "the heat map has no rank a row")
        expect(browser.evaluate("document.getElementById('timeline-section').hidden") is False, "there is no timeline")

        expect(browser.evaluate("document.getElementById('gpus-section').hidden"), "GPUs of a run on CPUs")

        for rank in (2, 3):
            x, y = browser.evaluate(f"""(() => {{
                const chart = charts.find(chart => chart.canvas.id === 'ranks');
                chart.canvas.scrollIntoView({{block: 'center'}});
                const box = chart.canvas.getBoundingClientRect(), bar = chart.getDatasetMeta(0).data[{rank}].getCenterPoint();
                return [box.left + bar.x, box.top + bar.y]; }})()""")
            browser.click(x, y)
            browser.settle()
            shown = browser.evaluate("document.getElementById('rank').textContent")
            expect(shown.startswith(f"Rank {rank} on "), f"a click on rank {rank} shows: {shown}")

        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        check(browser, "dark")
        dark = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        expect(dark == "rgb(18, 22, 28)", f"dark is {dark}")
        expect(browser.evaluate("Chart.defaults.color") == "#9aa6b6", "charts have the colours of light")
        browser.size(390, 844, phone=True)
        browser.open(page)
        check(browser, "390 wide")
        browser.screenshot(f"{scratch}/phone.png", whole=True)
        browser.call("Emulation.setEmulatedMedia", features=[])
        expect(len(browser.call("Page.printToPDF")["data"]) > 20000, "nothing is printed")
        check(browser, "printed")
        browser.open(with_gpus(page))
        check(browser, "GPUs, 390 wide")
        expect(browser.evaluate("charts.length") == 9, "the clocks are not drawn")
        shown = browser.evaluate("document.getElementById('gpus').textContent")
        expect("too hot" in shown and "1 corrected, 0 not" in shown, f"of GPUs the page says {shown}")
        expect("GPU too hot" in browser.evaluate("document.getElementById('stragglers').textContent"), "nobody is throttled")
        browser.open(scaling)
        check(browser, "scaling, 390 wide")
        browser.size(1280, 900)
        check(browser, "scaling, 1280 wide")
        expect(browser.evaluate("charts.length") == 2, "scaling has not two charts")
        expect(browser.evaluate("window.hostile") is None, "the run's name ran as a script")
        asked = {url for url in browser.requests if not url.startswith("data:")}
        expect(len(asked) == 3, f"the pages ask for {asked}")
    finally:
        browser.close()
    print("passed")


main()
