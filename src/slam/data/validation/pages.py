"""Great Expectations' Data Docs, made readable without a network, and a first page of our own.

As built, the documents load their styles and scripts from seven hosts, and the list of results is drawn by one of
those scripts: without a network it is blank. Here the remote parts are removed, one small stylesheet takes their
place, and `index.html` is a plain table.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

# What needs the network or a script that does (scripts, styles, icons, logos, buttons, the newsletter), or says nothing
REMOTE = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<button\b.*?</button>|<footer\b.*?</footer>"
    r"|<nav\b.*</nav>|Data asset: None<br>|(?<=</i>) (?:Failed|Succeeded)",
    re.DOTALL | re.IGNORECASE,
)
STYLE = "slam.css"
HISTOGRAMS = ("../histograms.png", "each limit's column, with the cut")
SUITE_LINK = "../../../../expectations/"  # Great Expectations puts its pages that deep
CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h4, h5, h6 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { border: 1px solid #ddd; padding: .3rem .7rem; text-align: left; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.aside { color: #777; }
.passed, .text-success { color: #18794e; }
.failed, .text-danger { color: #c4320a; }
.text-success.fas::before { content: "passed"; font-style: normal; }
.text-danger.fas::before, .text-warning.fas::before { content: "failed"; font-style: normal; }
[style*="color:red"] { color: inherit !important; }
.cooltip > span, .show-scrollbars + div, form, a[data-toggle] { display: none; }
"""


class Table(NamedTuple):
    """One that was validated."""

    name: str
    suite: str
    problems: list[str]  # a sentence for each expectation that failed, with rows by name
    page: str  # HTML, as Great Expectations makes it


def write(
    docs: Path,
    tables: Iterable[Table],
    suites: dict[str, str],
    counts: dict,
    problems: list[str],
    notes: list[str],
    title: str = "Captioned pictures",
    picture: tuple[str, str] = HISTOGRAMS,
) -> None:
    """A page for each table and for each suite (name -> HTML), and the index that leads to them.

    `problems` are why the data was not accepted; `notes` are what was wrong and did not stop it. `picture`: its place
    relative to the index, and what it shows.
    """
    shutil.rmtree(docs, ignore_errors=True)
    (docs / STYLE).parent.mkdir(parents=True)
    (docs / STYLE).write_text(CSS, encoding="utf-8")
    lines = []
    for table in tables:
        page = docs / "validations" / table.suite / f"{table.name}.html"
        _put(page, _local(table.page, page, docs, table.name, table.problems))
        outcome = "failed" if table.problems else "passed"
        link = quote(page.relative_to(docs).as_posix())
        lines.append(
            f'<tr><td><a href="{link}">{escape(table.name)}</a><td>{escape(table.suite)}<td class="{outcome}">{outcome}'
        )
    for name, html in suites.items():
        page = docs / "expectations" / f"{name}.html"
        _put(page, _local(html, page, docs, name))
    _put(docs / "index.html", _index(lines, suites, counts, problems, notes, title, picture))


def _put(page: Path, html: str) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(html, encoding="utf-8")


def _local(html: str, page: Path, docs: Path, name: str, problems: Iterable[str] = ()) -> str:
    """The page without its remote parts, with our style, a title, what is wrong and a way back."""
    root = os.path.relpath(docs, page.parent)
    html = REMOTE.sub("", html).replace(SUITE_LINK, f"{root}/expectations/")
    html = html.replace("</head>", f'<link rel="stylesheet" href="{root}/{STYLE}"></head>', 1)
    top = f'<a href="{root}/index.html">all tables</a><h1>{escape(name)}</h1>{_red(problems)}'
    return html.replace("<body>", f"<body>{top}", 1)


def _red(problems: Iterable[str]) -> str:
    return "".join(f'<p class="failed">{escape(problem)}</p>' for problem in problems)


def _index(
    lines: list[str],
    suites: Iterable[str],
    counts: dict,
    problems: list[str],
    notes: list[str],
    title: str,
    picture: tuple[str, str],
) -> str:
    some = {reason: count for reason, count in counts["rejected"].items() if count}
    amounts = {"rows": counts["rows"], **some, "survivors": counts["survivors"]}
    rows = "".join(f'<tr><td>{escape(n)}<td class="number">{c:,}' for n, c in amounts.items())
    no = ", ".join(reason for reason in counts["rejected"] if reason not in some)
    none = f'<p class="aside">None for: {escape(no)}.</p>' if no else ""
    verdict = _red(problems) or '<p class="passed">Accepted.</p>'
    noted = "".join(f"<p>{escape(note)}</p>" for note in notes)
    told = ", ".join(f'<a href="expectations/{name}.html">{name}</a>' for name in suites)
    return (
        f'<!doctype html><meta charset="utf-8"><title>Data Docs</title><link rel="stylesheet" href="{STYLE}">'
        f"<h1>{escape(title)}: what was checked</h1>{verdict}{noted}"
        f"<h2>Rows</h2><table><tr><th>rows, then why some were rejected<th>count{rows}</table>{none}"
        f'<p><img src="{picture[0]}" alt="{escape(picture[1])}" style="max-width:100%"></p>'
        f"<h2>Tables validated by Great Expectations</h2><p>What is expected: {told}.</p>"
        f"<table><tr><th>table<th>suite<th>outcome{''.join(lines)}</table>"
    )
