"""Great Expectations' Data Docs, made readable without a network, and a first page of our own.

As built, the documents load their styles and scripts from seven hosts, and the list of results is drawn by one of
those scripts: without a network it is blank. Here the remote parts are removed, one small stylesheet takes their
place, and `index.html` is a plain table.
"""

from __future__ import annotations

import os
import re
import shutil
from html import escape
from pathlib import Path

# What needs the network, or a script that does: scripts, styles, icons, logos, buttons, the newsletter.
REMOTE = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<button\b.*?</button>|<footer\b.*?</footer>"
    r"|<nav\b.*</nav>",
    re.DOTALL | re.IGNORECASE,
)
UNUSED = ("fonts", "images")  # 4 MB of what the removed parts showed
STYLE = "static/styles/slam.css"
CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { border: 1px solid #ddd; padding: .3rem .7rem; text-align: left; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.passed, .text-success { color: #18794e; }
.failed, .text-danger { color: #c4320a; }
.text-success.fas::before { content: "passed"; font-style: normal; }
.text-danger.fas::before, .text-warning.fas::before { content: "failed"; font-style: normal; }
.cooltip > span, .show-scrollbars + div, form, a[data-toggle] { display: none; }
"""


def write(docs: Path, results: list[tuple[str, bool, Path]], counts: dict, problems: list[str]) -> None:
    """Rewrite the pages in `docs` and its index; `results` name each validated table, its outcome and its page."""
    (docs / STYLE).write_text(CSS, encoding="utf-8")
    for name in UNUSED:
        shutil.rmtree(docs / "static" / name, ignore_errors=True)
    names = {page: name for name, _, page in results}
    for page in sorted(docs.rglob("*.html")):
        page.write_text(_local(page, docs, names.get(page, page.stem)), encoding="utf-8")
    (docs / "index.html").write_text(_index(docs, results, counts, problems), encoding="utf-8")


def _local(page: Path, docs: Path, name: str) -> str:
    """The page without its remote parts, with our style, a title and a way back."""
    root = os.path.relpath(docs, page.parent)
    html = REMOTE.sub("", page.read_text(encoding="utf-8"))
    html = html.replace("</head>", f'<link rel="stylesheet" href="{root}/{STYLE}"></head>', 1)
    return html.replace("<body>", f'<body><a href="{root}/index.html">all tables</a><h1>{escape(name)}</h1>', 1)


def _index(docs: Path, results: list[tuple[str, bool, Path]], counts: dict, problems: list[str]) -> str:
    amounts = {"rows": counts["rows"], **counts["rejected"], "survivors": counts["survivors"]}
    rows = "".join(f'<tr><td>{escape(n)}<td class="number">{c:,}' for n, c in amounts.items())
    tables = "".join(
        f'<tr><td><a href="{page.relative_to(docs).as_posix()}">{escape(name)}</a>'
        f'<td class="{"passed" if passed else "failed"}">{"passed" if passed else "failed"}'
        for name, passed, page in results
    )
    verdict = "".join(f'<p class="failed">{escape(p)}</p>' for p in problems) or '<p class="passed">Accepted.</p>'
    return (
        f'<!doctype html><meta charset="utf-8"><title>Data Docs</title><link rel="stylesheet" href="{STYLE}">'
        f"<h1>Captioned pictures: what was checked</h1>{verdict}"
        f"<h2>Rows</h2><table><tr><th>rows, then why some were rejected<th>count{rows}</table>"
        f"<h2>Tables validated by Great Expectations</h2><table><tr><th>table<th>outcome{tables}</table>"
    )
