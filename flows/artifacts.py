"""What a run shows in Prefect's pages: how far its stages are, the table of scores, the pictures."""

from __future__ import annotations

import base64
import io
import re
import time
from contextlib import suppress
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

EVERY = 10.0  # seconds between two updates of a progress artifact
BAR = re.compile(r"^(.*?): +(\d+)%\|")  # of slam.progress: "train:  40%|####      | 140/350 [00:20<00:30, …]"
WIDTH = 1200  # pixels of a picture in the page, which is kept in Prefect's database


class Progress:
    """A stage's progress bars as one artifact, made with the first bar; its description is the bar at hand."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.artifact = None
        self.updated = 0.0

    def read(self, line: str) -> None:
        """Takes a line of the stage's output; those that are no bar do nothing."""
        bar = BAR.match(line)
        if not bar or time.monotonic() < self.updated + EVERY:
            return
        self.updated = time.monotonic()
        self._show(float(bar[2]), f"{self.stage}: {bar[1]}")

    def done(self) -> None:
        if self.artifact:
            self._show(100.0, f"{self.stage}: done")

    def _show(self, percent: float, description: str) -> None:
        # A training of days must not end because the page that shows it is away. The log says what happens anyway.
        with suppress(Exception):
            if self.artifact:
                update_progress_artifact(self.artifact, percent, description)
            else:
                self.artifact = create_progress_artifact(percent, f"progress-{self.stage}", description)


def results(title: str, folder: Path) -> None:
    """The table and the pictures that an evaluation left in `folder`, on one page."""
    table = (folder / "table.md").read_text(encoding="utf-8")
    pictures = "".join(f"![{file.stem}]({embedded(file)})\n\n" for file in sorted(folder.glob("*.png")))
    create_markdown_artifact(f"# {title}\n\n{table}\n{pictures}", key="evaluation", description=title)


def embedded(file: Path) -> str:
    """The picture, no wider than WIDTH, as a data URL: Prefect's page has no other way to a file of this machine."""
    with Image.open(file) as image:
        image.thumbnail((WIDTH, 10 * WIDTH))
        stream = io.BytesIO()
        image.convert("RGB").save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
