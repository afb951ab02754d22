"""The table of an evaluation, on the terminal and as Markdown, from the records of `metrics.json` alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
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
SETTINGS = ("model", "sampler", "steps", "guidance")
# Column -> key of the record, factor, digits, unit
METRICS = {
    "FID": ("fid", 1, 2, ""),
    "KID x1000": ("kid", 1000, 1, ""),
    "precision": ("precision", 100, 1, "%"),
    "recall": ("recall", 100, 1, "%"),
    "CLIP score": ("clip_score", 1, 1, ""),
    "faithful": ("faithfulness", 100, 1, "%"),
    "captions right": ("captions_right", 100, 1, "%"),
    "ms each": ("seconds_per_image", 1000, 1, ""),
}
NARROW = ("FID", "CLIP score", "faithful", "captions right", "ms each")  # what 80 columns have room for
SMALL = 10_000  # pictures; the bias of FID under them is more than most differences that people report


def cells(record: dict, columns: Sequence[str] = tuple(METRICS), spread: bool = True) -> tuple[str, ...]:
    """One record as text: its settings, then `columns` of METRICS, with half the width of the 95% interval."""
    settings = (
        record["model"],
        NAMES[record["sampler"]],
        str(record["steps"] or "-"),
        f"{record['guidance']:g}" if record["steps"] else "-",
    )
    return settings + tuple(_cell(record, *METRICS[column], spread) for column in columns)


def caption(records: Sequence[dict]) -> str:
    """What the numbers are of; of two protocols, that they are not to be compared."""
    first = records[0]
    if len({record["protocol_hash"] for record in records}) > 1:
        return "NOT COMPARABLE: these rows were measured under different protocols or inputs; see the protocol of each"
    return f"{first['n']} pictures a row, seed {first['seed']}, protocol {_protocol(first)}"


def notes(records: Sequence[dict]) -> list[str]:
    """What a reader has to know: which models, of intervals, of the bias of FID at few pictures, of the time."""
    said = []
    names = {record["model"]: record["name"] for record in records if "name" in record and record["model"] != "vae"}
    if names:
        said.append(f"{'; '.join(f'{model}: {name}' for model, name in names.items())}.")
    if any(record.get("fid_interval") for record in records):
        said.append(
            "±: half of a 95% interval, from resampling the pictures of a row (seeds of training not included)."
        )
    few = [record for record in records if record["n"] < SMALL]
    if few:
        bias = [r["fid"] - r["fid_infinity"] for r in few if r.get("fid_infinity") is not None]
        by = f": here by about {np.median(bias):.1f} (median over the rows, from FID-infinity)" if bias else ""
        said.append(f"FID of fewer than {SMALL:,} pictures is too high{by}; compare it only at the same number.")
    timing = records[0].get("timing")
    if timing:
        said.append(
            f"ms each: {timing['method']}; blocks of {timing['block']}, {timing['processes']} process(es) of"
            f" {timing['threads']} thread(s), {records[0]['inputs']['device']}."
        )
    return said


def markdown(records: Sequence[dict]) -> str:
    mixed = len({record["protocol_hash"] for record in records}) > 1
    columns = [name for name, (key, *_) in METRICS.items() if any(r.get(key) is not None for r in records)]
    heads = [*SETTINGS, *columns, *(["protocol"] if mixed else [])]
    lines = [heads, ["---", "---"] + ["---:"] * (len(heads) - 2)]
    lines += [[*cells(record, columns), *([_protocol(record)] if mixed else [])] for record in records]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    text = "".join(f"\n{line}\n" for line in (f"{caption(records)}.", *notes(records)))
    return table + text + _worst(records)


def write_table(records: Sequence[dict], path: Path) -> None:
    with whole_file(path) as partial:
        partial.write_text(markdown(records), encoding="utf-8")


def print_table(records: Sequence[dict], console: Console | None = None) -> None:
    """At most 80 columns wide. The rows of one model and sampler stand together; the student's are bold."""
    table = Table(caption=caption(records), box=box.SIMPLE, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for index, head in enumerate((*SETTINGS, *NARROW)):
        table.add_column(head.replace(" ", "\n"), justify="left" if index < 2 else "right")
    for record, following in zip(records, [*records[1:], None], strict=True):
        ends = following is None or _group(record) != _group(following)
        bold = "bold" if record["model"] == "student" else None
        table.add_row(*cells(record, NARROW, spread=False), end_section=ends, style=bold)
    (console or Console()).print(table)


def title(record: dict) -> str:
    """What stands over a group of columns, or names a line: a student by its model, the rest by the sampler."""
    if record["model"] in ("student", "champion"):
        return record["model"]
    return NAMES[record["sampler"]]


def _group(record: dict) -> tuple:
    return record["model"], record["sampler"], record["model"] == "teacher" and record["steps"] >= 20


def _cell(record: dict, key: str, factor: float, digits: int, unit: str, spread: bool) -> str:
    value, ends = record.get(key), record.get(f"{key}_interval")
    if value is None:
        return "-"
    half = f" ± {factor * (ends[1] - ends[0]) / 2:.{digits}f}" if spread and ends else ""
    return f"{factor * value:.{digits}f}{half}{unit}"


def _protocol(record: dict) -> str:
    version = f" v{record['protocol_version']}" if "protocol_version" in record else ""
    return f"{record['protocol']}{version} ({record['protocol_hash'][:8]})"


def _worst(records: Sequence[dict]) -> str:
    """The prompts that the student's last row draws worst."""
    rows = [record for record in records if record.get("worst") and record["steps"]]
    if not rows:
        return ""
    row = next((record for record in reversed(rows) if record["model"] == "student"), rows[0])
    lines = [f"* {entry['clip_score']:.1f}: {entry['caption']}\n" for entry in row["worst"]]
    steps = f"{row['steps']} step{'s' * (row['steps'] > 1)}"
    return f"\nWorst prompts by CLIP score, {row['model']}, {steps}:\n\n{''.join(lines)}"
