import pytest

from slam.config_data import Filter
from slam.data.deps import own_files, require_deps
from slam.errors import SlamError

OWN = Filter(removal=("lists/gone.txt",), decontaminate="val2014", expectations="own.yaml", survivors=0, validation=1)


@pytest.fixture
def deps(tmp_path, monkeypatch):
    """Writes what dvc.yaml says of the stage `filter`, which this process then is."""

    def write(text: str) -> None:
        (tmp_path / "dvc.yaml").write_text(f"stages: {{filter: {{cmd: slam filter, deps: {text}}}}}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "filter")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return write


def test_a_file_that_dvc_would_not_see_change_is_refused(deps):
    deps("[data/raw, lists/other.txt]")
    with pytest.raises(SlamError, match=r"lists/gone.txt: expected under `deps` .* dvc.yaml, found it nowhere there"):
        require_deps(own_files(OWN))
    deps("[lists, val2014, {own.yaml: {}}]")
    require_deps(own_files(OWN))
    deps("[lists, val2014]")
    with pytest.raises(SlamError, match="own.yaml"):
        require_deps(own_files(OWN))


@pytest.mark.parametrize(("name", "value"), [("DVC_STAGE", None), ("DVC_STAGE", "other"), ("DVC_ROOT", "/nowhere")])
def test_where_dvc_does_not_run_the_stage_nothing_is_refused(name, value, deps, monkeypatch):
    deps("[data/raw]")
    monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    require_deps(own_files(OWN))
