"""Is a server there? MLflow's client would try for minutes before it says no."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import urlopen

from slam.errors import SlamError


def require_answer(variable: str, address: str) -> None:
    """Raises `SlamError` unless the server at `address`, which the environment's `variable` names, answers at all."""
    try:
        with urlopen(f"{address}/health", timeout=10):
            return
    except HTTPError:
        return  # an answer
    except OSError as error:
        raise SlamError(
            f"{variable} = {address} does not answer ({getattr(error, 'reason', error)}): `make up` starts the servers;"
            " to do without, `make down` and `unset PREFECT_API_URL MLFLOW_TRACKING_URI`"
        ) from None
