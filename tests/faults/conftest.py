from tests.training.conftest import profile  # noqa: F401
