"""A disk that fails at the n-th write, fsync, rename, … of a process. `no_space` in test_disk.py is a real full one."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from pathlib import Path

OPERATIONS = ("write", "fsync", "rename", "mkdir", "unlink")


class Disk:
    """From `install` on, counts what this process asks of the disk; the `n`-th `operation` fails."""

    def __init__(self, operation: str | None = None, n: int = 0, counts: Path | None = None) -> None:
        self.failing, self.n, self.counts = operation, n, counts

    def __call__(self) -> None:
        """Install it, in the child."""
        from slam.training import checkpoint

        self.seen, self.lock = Counter(), threading.Lock()
        for operation, names in {
            "fsync": ("fsync",),
            "rename": ("rename", "replace"),
            "mkdir": ("mkdir",),
            "unlink": ("unlink", "rmdir"),
        }.items():
            for name in names:
                setattr(os, name, self.counted(operation, getattr(os, name)))
        Path.write_text = self.torn(Path.write_text, place=0)
        Path.write_bytes = self.torn(Path.write_bytes, place=0)
        checkpoint.save_file = self.torn(checkpoint.save_file, place=1)

    def counted(self, operation: str, true):
        def call(*arguments, **named):
            self.fail_if_due(operation)
            return true(*arguments, **named)

        return call

    def torn(self, true, place: int):
        """A write to the file that is argument number `place`: when it fails, half of it is there."""

        def call(*arguments, **named):
            done = true(*arguments, **named)
            path = Path(arguments[place])
            try:
                self.fail_if_due("write")
            except OSError:
                os.truncate(path, path.stat().st_size // 2)
                raise
            return done

        return call

    def fail_if_due(self, operation: str) -> None:
        with self.lock:
            self.seen[operation] += 1
            due = operation == self.failing and self.seen[operation] == self.n
            if self.counts:
                self.counts.open("a").write(f"{operation}\n")
        if due:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
