"""A foreign pickle of tensors to safetensors, in a process of its own: `python -I weights_only.py IN OUT`.

Nothing of slam is imported here and nothing is passed in but two paths. Three things stand between the file and the
machine: torch's weights-only unpickler, which builds tensors and calls nothing that the file names; an audit hook,
set before the file is read, after which Python in this process opens no socket and starts no program; a bound on
the memory (Linux). Exit code 1 and one line on standard error when the file is refused.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

MOST = 2**24  # numbers in all tensors together
MEMORY = 2 * 2**30  # bytes beyond what the interpreter and torch have mapped
REFUSED = re.compile(r"socket\.|subprocess\.|pty\.|os\.(system|exec|fork|forkpty|posix_spawn|spawn|startfile)|ctypes\.")


def shut(event: str, arguments: tuple) -> None:
    """An audit hook (PEP 578): it cannot be taken off again."""
    if REFUSED.match(event):
        raise PermissionError(f"{event} is not for a file of weights")


def bound_memory() -> None:
    if sys.platform == "linux":
        import resource

        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))


def read(content: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a pickled state dict, each with memory of its own. Raises ValueError with what was found."""
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's text goes on to recommend weights_only=False
        if said := re.search(r"GLOBAL \S+", str(error)):
            raise ValueError(f"a pickle that names more than tensors ({said[0]})") from None
        raise ValueError("no whole file of torch.save") from None
    except (RuntimeError, EOFError, OSError, KeyError, AttributeError, TypeError, ValueError, MemoryError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"no whole file of torch.save ({said[0]})") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"a {type(found).__name__}, no dictionary of names")
    for key, value in found.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise ValueError(f"{key!r}, a {type(value).__name__}, among the tensors")
    total = sum(value.numel() for value in found.values())  # before any is copied: a view of one number may claim more
    if total > MOST:
        raise ValueError(f"{total} numbers, at most {MOST} are read")
    return {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in found.items()}


def main() -> None:
    source, out = sys.argv[1:]
    content = Path(source).read_bytes()
    bound_memory()
    sys.addaudithook(shut)
    try:
        save_file(read(content), out, {"sha256": hashlib.sha256(content).hexdigest()})
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
