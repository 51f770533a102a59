import pytest

from pipeline.report.build import build_report
from pipeline.report.data import gather, run_title
from tests.report.artifacts import manifests, write_artifacts


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Artifact folders of a small run by stage name."""
    return write_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="session")
def report(folders, tmp_path_factory):
    """Folder of the finished report of that run."""
    out = tmp_path_factory.mktemp("report")
    build_report(gather(folders, manifests(), run_title(manifests())), out)
    return out
