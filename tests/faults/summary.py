"""The table at the end: of each kind of fault, how many were tried and survived, and how many lost something."""

from __future__ import annotations

from collections import Counter

import pytest

NAME = "fault"


class Tally:
    """A test's count of the faults that it made. All of them are survived if the test passes; else the last is lost."""

    def __init__(self, node: pytest.Item) -> None:
        self.node = node

    def tried(self, kind: str) -> None:
        self.node.user_properties.append((NAME, kind))  # what reaches the process that reports


@pytest.fixture
def tally(request) -> Tally:
    return Tally(request.node)


def pytest_terminal_summary(terminalreporter) -> None:
    tried, lost = Counter(), Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            kinds = [kind for name, kind in report.user_properties if name == NAME] if report.when == "call" else []
            tried.update(kinds)
            if outcome == "failed" and kinds:
                lost[kinds[-1]] += 1
    if not tried:
        return
    terminalreporter.section("faults")
    width = max(map(len, tried))
    terminalreporter.line(f"{'':{width}}  tried  survived  lost")
    for kind in sorted(tried):
        terminalreporter.line(f"{kind:{width}}  {tried[kind]:5}  {tried[kind] - lost[kind]:8}  {lost[kind]:4}")
    all_tried, all_lost = tried.total(), lost.total()
    terminalreporter.line(f"{'all':{width}}  {all_tried:5}  {all_tried - all_lost:8}  {all_lost:4}")
