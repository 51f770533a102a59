"""What a look at a folder costs does not grow with what its store holds."""

from pathlib import Path

import pytest

from flows.case_folder import CaseFolder, RunRecord
from flows.settings import resolve
from pipeline.store.store import Store
from tests.flows.harness import Porf, SmallCase, refuse
from tests.flows.test_plan import ahead, fill


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_text(name)
    return folder


def finished_folder(out: Path, photos: Path, others: int) -> CaseFolder:
    """A folder with current results beside those of that many other seeds."""
    folder = CaseFolder(out)
    folder.create()
    for seed in range(1, others + 1):
        fill(folder, photos, seed=str(seed))
    fill(folder, photos)
    keys = {name: p.manifest.key for name, p in ahead(folder, photos).items() if p.manifest}
    record = RunRecord(
        photos=str(photos),
        external={"photos": str(photos)},
        preset="fast",
        settings=resolve().model_dump(mode="json"),
        keys=keys,
    )
    folder.save_record(record)
    return folder


def test_status_reads_no_more_manifests_of_a_large_store(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    find = Store.find

    def counted(store: Store, *words: object, **more: object) -> object:
        counts[-1] += 1
        return find(store, *words, **more)  # type: ignore[arg-type]

    for others in (0, 25):
        folder = finished_folder(tmp_path / f"out{others}", photos, others)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "find", counted)
            counts.append(0)
            said = refuse("status", folder.root)
        assert said.code == 0
        assert said.text.count("done") >= 8
    assert counts[0] == counts[1]


def test_a_run_with_nothing_to_do_starts_no_server(
    porf: Porf, small_case: SmallCase, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    finished = porf.run(small_case, PORF_HOME=str(home), PREFECT_API_URL="")
    assert finished.code == 0, finished.text
    assert finished.text.count("cached") == len(small_case.keys())
    assert not (home / "prefect" / "server.log").exists()
    (small_case.out / "mesh.ply").unlink()
    porf.run(small_case, PORF_HOME=str(home), PREFECT_API_URL="")
    assert (small_case.out / "mesh.ply").is_file()  # put back from the store
