"""Where a run goes on: at one checkpoint, the same for every process."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from slam.errors import SlamError
from slam.training import checkpoint
from slam.training.state import State


def resume(root: Path, fingerprint: str, state: State, accelerator: Accelerator) -> int:
    """Load the newest whole checkpoint in `root` into the state; returns its step, 0 where there is none.

    Those that are newer are damaged: they are set aside, so that what the run writes from now on is its newest.
    Raises `SlamError` when there are some and none can be gone on from, or when the processes do not read the same.
    """
    newest = checkpoint.newest_whole(root, accelerator.print, fingerprint)
    seals = gather_object([checkpoint.read_manifest(newest)["sha256"] if newest else "none"])
    if len(set(seals)) > 1:
        raise SlamError(
            f"the processes do not read the same newest checkpoint in {root} (by its sha256: "
            + ", ".join(f"rank {rank} {seal[:12]}" for rank, seal in enumerate(seals))
            + "): see that all machines see the same files, and that they can be read, and run the same command again"
        )
    unusable = [path for path in checkpoint.folders(root) if path != newest]
    if not newest:
        if unusable:
            raise SlamError(
                f"none of the {len(unusable)} checkpoints in {root} can be gone on from, for the reasons told above; "
                "nothing was changed. If the disk could not be read, run the same command again once it can; to start "
                f"again at step 0, move {root} away"
            )
        return 0
    accelerator.print(f"going on from {newest}")
    step = checkpoint.restore(newest, state)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for path in unusable:
            if checkpoint.number(path) > step:
                accelerator.print(f"{path} is now {checkpoint.set_aside(path)}")
    return step
