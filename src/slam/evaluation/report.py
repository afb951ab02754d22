"""The table of an evaluation, on the terminal and as Markdown, from the records of `metrics.json` alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from slam.files import whole_file

NAMES = {
    "ddim": "DDIM",
    "dpm": "DPM-Solver",
    "dpm++": "DPM-Solver++",
    "unipc": "UniPC",
    "lcm": "LCM",
    "reconstruction": "autoencoder",
}
HEADS = ("model", "sampler", "steps", "guidance", "FID", "CLIP score", "faithful", "captions right", "ms each")


def cells(record: dict) -> tuple[str, ...]:
    """One record as text, in the order of HEADS."""
    return (
        record["model"],
        NAMES[record["sampler"]],
        str(record["steps"] or "-"),
        f"{record['guidance']:g}" if record["steps"] else "-",
        f"{record['fid']:.2f}",
        f"{record['clip_score']:.1f}",
        _percent(record["faithfulness"]),
        _percent(record.get("captions_right")),
        f"{1000 * record['seconds_per_image']:.1f}",
    )


def caption(records: Sequence[dict]) -> str:
    first = records[0]
    return f"{first['n']} pictures a row, seed {first['seed']}, protocol {first['protocol']}"


def markdown(records: Sequence[dict]) -> str:
    lines = [HEADS, ("---", "---") + ("---:",) * (len(HEADS) - 2), *(cells(record) for record in records)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{caption(records)}.\n"


def write_table(records: Sequence[dict], path: Path) -> None:
    with whole_file(path) as partial:
        partial.write_text(markdown(records), encoding="utf-8")


def print_table(records: Sequence[dict], console: Console | None = None) -> None:
    """At most 80 columns wide. The rows of one model and sampler stand together; the student's are bold."""
    table = Table(caption=caption(records), box=box.SIMPLE, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for index, head in enumerate(HEADS):
        table.add_column(head.replace(" ", "\n"), justify="left" if index < 2 else "right")
    for record, following in zip(records, [*records[1:], None], strict=True):
        ends = following is None or _group(record) != _group(following)
        table.add_row(*cells(record), end_section=ends, style="bold" if record["model"] == "student" else None)
    (console or Console()).print(table)


def _group(record: dict) -> tuple:
    return record["model"], record["sampler"], record["model"] == "teacher" and record["steps"] >= 20


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
