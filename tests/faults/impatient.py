"""`slam.training.loop` with 10 seconds of patience for a rank instead of 10 minutes."""

import sys
from datetime import timedelta
from pathlib import Path

from slam.training import loop, stop

if __name__ == "__main__":
    loop.SILENCE = stop.SILENCE = timedelta(seconds=10)
    sys.exit(loop.train(Path(sys.argv[1])))
