"""How the parts of a study are called from a shell: a user's mistake gets its message, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from slam.errors import SlamError


def command(main: Callable[..., None], *names: str) -> None:
    """Calls `main` with the program's arguments, which are `names`."""
    given = sys.argv[1:]
    if len(given) != len(names):
        sys.exit(f"study: expected {' '.join(names)}, found {' '.join(given) or 'nothing'}; FOLDER is such as studies")
    try:
        main(*given)
    except SlamError as error:
        print(f"study: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)  # as shells count Ctrl-C
