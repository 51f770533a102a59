"""Fixtures that every test may use."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
_TESTS = Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares costly fixtures: the flows' server and run, and a file's cases."""
    for item in items:
        folder, *rest = item.path.relative_to(_TESTS).parts
        group = folder if folder == "flows" else "/".join([folder, *rest])
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the repository; tests that need it skip where it is missing."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("reference data (../shared) is not there")
    return folder
