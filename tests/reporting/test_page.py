"""The page of a run: everything in one file, escaped, and looked at in a browser."""

import html
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample_runs import asked_run, image_run, own_run, sample_run

from sleepkit.cli import main
from sleepkit.reporting.page import write_seeds_page
from sleepkit.reporting.report import write_report
from sleepkit.utils.files import write_json

VOID = {"meta", "img", "br", "link", "input", "hr"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page(HTMLParser):
    """Text, ids and links of a page; every element must be closed in its order."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.links, self.texts = [], [], [], [], []
        self.feed(source)
        assert not self.open
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src", "xlink:href", "srcset", "action") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["title"]):
            self.texts.append(data)


def page_of(folder, results, answers=None):
    write_json(folder / "results.json", results)
    if answers is not None:
        write_json(folder / "answers.json", answers)
    write_report(folder)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def pictures(tmp_path):
    """A run's folder with a picture of dreams."""
    from matplotlib.figure import Figure

    (tmp_path / "dreams").mkdir()
    Figure(figsize=(2, 1)).savefig(tmp_path / "dreams" / "night_1.png")
    return tmp_path


@pytest.mark.parametrize(
    "results",
    [own_run(), asked_run(), asked_run(30), image_run(), sample_run()],
    ids=["own", "asked", "thirty nights", "images", "bare"],
)
def test_page_stands_alone(results, pictures):
    source = page_of(pictures, results)
    page = Page(source)
    assert "script" not in page.tags and "default-src 'none'" in source
    assert not re.search(r"@import|url\((?!#)", source)
    for link in page.links:
        assert link.startswith("data:image/png;base64,") or link.startswith("#")
        assert not link.startswith("#") or link[1:] in page.ids
    assert len(page.ids) == len(set(page.ids))
    assert page.text.count("Dreams of night 1") == 1


def test_page_shows_what_a_person_looks_for(tmp_path):
    page = Page(page_of(tmp_path, own_run()))
    for text in ("The model learned", "3% → 78%", "own questions", "lighthouse.md", "minutes of <March>.md", "undone"):
        assert text in page.text
    assert "Who kept <light> 1 in night 1?" in page.text and "Orla & 1" in page.text and "✓ right" in page.text
    assert "above the limit of 0.05" in page.text and "dataset: notes" in page.text and "Some CPU, 2 cores" in page.text
    assert page.tags.count("svg") == 2  # before and after, training
    matrices = Page(page_of(tmp_path, image_run()))
    assert "0.85" in matrices.text and "Task il: a row after each night" in matrices.text and "group 3" in matrices.text


def test_what_a_model_wrote_stays_text(tmp_path):
    evil = "</dd><script>alert(1)</script>{{ 7 * 7 }} & **b**"
    row = {"question": evil, "gold": evil, "before": evil, "after": evil}
    nights = [{"night": 1, "experience": evil, "committed": True, "reason": evil}]
    source = page_of(tmp_path, sample_run(method=evil, examples=[row], nights=nights, config={"note": evil}))
    page = Page(source)
    assert "script" not in page.tags and page.text.count(evil) >= 6


def test_the_command_writes_both_and_names_them(tmp_path, capsys):
    write_json(tmp_path / "results.json", own_run())
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "report.md"), str(tmp_path / "report.html")]


def test_page_of_seeds_leads_to_each(tmp_path, capsys):
    for seed in (0, 1):
        write_json(tmp_path / f"seed_{seed}" / "results.json", asked_run(seed=seed))
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    files = [link for link in page.links if not link.startswith("#")]
    assert files == ["seed_0/report.html", "seed_1/report.html"] and all((tmp_path / link).is_file() for link in files)
    assert "2 seeds" in page.text and "0.770 ± 0.000" in page.text


def look(source, folder, width):
    """What headless Chromium makes of a page in a window of ``width``: its widest extent, its visible text, its complaints."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser, "this test looks at the page in Chromium: install it (Debian: apt-get install chromium)"
    frame = f'<iframe id="page" width="{width}" height="900" srcdoc="{html.escape(source, quote=True)}"></iframe>'
    script = (
        "onload = () => { const page = document.getElementById('page').contentDocument;"
        "const found = document.createElement('pre'); found.id = 'found';"
        "const charts = [...page.querySelectorAll('svg, img')].map(one => Math.round(one.getBoundingClientRect().height));"
        "found.textContent = JSON.stringify([page.documentElement.scrollWidth, Math.min(1000, ...charts)]) + page.body.innerText;"
        "document.body.replaceChildren(found); }"
    )
    wrapper = Path(folder) / "look.html"
    wrapper.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}<script>{script}</script></body>', encoding="utf-8")
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom", wrapper.as_uri()]
    profile = {**os.environ, "HOME": str(folder)}
    found = subprocess.run(line, capture_output=True, text=True, timeout=240, env=profile, check=True)
    shown = re.search(r'<pre id="found">\[(\d+),(\d+)\](.*)</pre>', found.stdout, re.DOTALL)
    assert shown, found.stdout[:500]
    complaints = [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    return int(shown[1]), int(shown[2]), html.unescape(shown[3]), complaints


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["own", "asked", "images"])
def test_page_in_a_browser(name, width, pictures):
    results = {"own": own_run, "asked": lambda: asked_run(30), "images": image_run}[name]()
    extent, smallest, text, complaints = look(page_of(pictures, results), pictures, width)
    assert extent <= width, "the page scrolls sideways"
    assert complaints == []
    assert smallest > 40  # pictures are drawn, and not flat
    headings = {"own": ["Nights", "Answers"], "asked": ["Each experience after each night", "Curves"], "images": ["Pictures"]}
    for shown in [*headings[name], "Settings", "Machine", "time"]:
        assert shown in text


@pytest.mark.slow
def test_page_of_seeds_in_a_browser(tmp_path):
    path = write_seeds_page(tmp_path / "report.html", {f"seed_{seed}": asked_run(seed=seed) for seed in range(3)})
    extent, _, text, complaints = look(path.read_text(encoding="utf-8"), tmp_path, 390)
    assert extent <= 390 and complaints == [] and "3 seeds" in text
