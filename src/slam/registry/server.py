"""Is a server there? MLflow's client would try for minutes before it says no."""

from __future__ import annotations

from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from slam.errors import SlamError

# MLflow's words for "the server, or the way to it, has trouble now".
PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}


class NoAnswerError(SlamError):
    """A server is not there now."""


def require_answer(variable: str, address: str) -> None:
    """Raises `NoAnswerError` unless the server at `address`, which `variable` of the environment names, answers."""
    try:
        with urlopen(f"{address}/health", timeout=10):
            return
    except HTTPError:
        return  # an answer
    except OSError as error:
        raise NoAnswerError(
            f"{variable} = {address} does not answer ({getattr(error, 'reason', error)}): `make up` starts the servers;"
            " to do without, `make down` and `unset PREFECT_API_URL MLFLOW_TRACKING_URI`"
        ) from None


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: the network or a server failed, not what was asked of it."""
    known = NoAnswerError | ConnectionError | TimeoutError | URLError
    return isinstance(error, known) or getattr(error, "error_code", None) in PASSING
