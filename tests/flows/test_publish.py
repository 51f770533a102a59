"""Results on object storage, against a real local S3 server."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.case_folder import CaseFolder, RunRecord
from flows.publish import INDEX, _Target, check_url, publish
from pipeline.errors import InputError, PorfError
from pipeline.store.manifest import Manifest, Recipe
from tests.flows.harness import refuse

SECRET = "a-very-secret-access-key"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server of its own."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            assert process.poll() is None
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def storage(server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """URL of a bucket of the test's own, with credentials in the environment."""
    import s3fs  # noqa: PLC0415

    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"bucket-{abs(hash(request.node.name)) % 10**8}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}"


def there(url: str) -> dict[str, bytes]:
    """What lies beneath a URL."""
    import s3fs  # noqa: PLC0415

    storage = s3fs.S3FileSystem(use_listings_cache=False)
    root = url.removeprefix("s3://")
    return {p.removeprefix(f"{root}/"): storage.cat_file(p) for p in storage.find(root)}


def a_result(out: Path, **files: bytes) -> CaseFolder:
    """An output folder with a finished mesh stage that made these files."""
    folder = CaseFolder(out)
    folder.create()
    recipe = Recipe(stage="mesh", version=1, options={}, seed=0, inputs={}, external={})
    with folder.store.building("mesh", recipe.key) as built:
        for name, content in files.items():
            (built / name.replace("_", ".")).write_bytes(content)
        folder.store.publish(built, Manifest(recipe=recipe, key=recipe.key, files={}))
    record = {"photos": "/p", "external": {}, "preset": "fast", "settings": {}}
    folder.save_record(RunRecord(**record, keys={"mesh": recipe.key}))
    return folder


def test_results_lie_there_with_sizes_and_hashes(storage: str, tmp_path: Path) -> None:
    made = {"mesh_ply": b"ply" * 1000, "mesh_glb": b"glb", "inner_npz": b"not a result"}
    folder = a_result(tmp_path / "out", **made)
    done = publish(folder, f"{storage}/a/b", verify=True)
    assert (done.sent, done.kept, done.size) == (2, 0, 3003)
    found = there(f"{storage}/a/b")
    assert found["mesh.ply"] == b"ply" * 1000
    assert sorted(found) == ["mesh.glb", "mesh.ply", INDEX]
    index = json.loads(found[INDEX])
    assert index["complete"] is True
    assert index["files"]["mesh.glb"]["size"] == 3
    again = publish(folder, f"{storage}/a/b")
    assert (again.sent, again.kept) == (0, 2)


def test_what_changed_or_is_damaged_or_gone_is_sent_again(storage: str, tmp_path: Path) -> None:
    import s3fs  # noqa: PLC0415

    folder = a_result(tmp_path / "out", mesh_ply=b"ply", mesh_glb=b"glb")
    publish(folder, storage)
    s3fs.S3FileSystem().pipe_file(f"{storage}/mesh.ply", b"shorter"[:2])
    assert publish(folder, storage).sent == 1
    s3fs.S3FileSystem().pipe_file(f"{storage}/mesh.ply", b"PLY")  # the same size
    with pytest.raises(PorfError, match=r"1 files differ.*mesh\.ply"):
        publish(folder, storage, verify=True)
    assert json.loads(there(storage)[INDEX])["complete"] is False
    assert publish(folder, storage, verify=True).sent == 1
    fewer = a_result(tmp_path / "other", mesh_ply=b"new")
    assert publish(fewer, storage).sent == 1
    assert sorted(there(storage)) == ["mesh.ply", INDEX]


def test_an_interrupted_copy_goes_on(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_result(tmp_path / "out", mesh_ply=b"ply", mesh_glb=b"glb")

    def cut_off(self: _Target, source: Path, name: str) -> None:
        if there(storage):
            raise ConnectionError("cut off")
        send(self, source, name)

    send = _Target.send
    with monkeypatch.context() as patched:
        patched.setattr("flows.publish._PER_ROUND", 1)
        patched.setattr(_Target, "send", cut_off)
        with pytest.raises(PorfError, match="cut off"):
            publish(folder, storage)
    assert json.loads(there(storage)[INDEX])["complete"] is False
    done = publish(folder, storage, verify=True)
    assert (done.sent, done.kept) == (1, 1)
    assert json.loads(there(storage)[INDEX])["complete"] is True


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://user:pw@bucket/x", "no user, password"),
        ("s3://bucket/x?key=1", "no user, password"),
        ("bucket/x", "no URL"),
        ("s3://", "no URL"),
        ("s3://bucket/../x", r"\.\."),
        ("nosuch://bucket/x", "nosuch"),
    ],
)
def test_bad_urls_are_refused(url: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        check_url(url)
    assert "pw" not in str(caught.value)


def test_a_storage_that_refuses_is_named_without_credentials(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs  # noqa: PLC0415

    folder = a_result(tmp_path / "out", mesh_ply=b"ply")
    with pytest.raises(InputError, match="no such bucket"):
        publish(folder, "s3://absent-bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(PorfError, match="storage failed") as caught:
        publish(folder, storage)
    assert SECRET not in str(caught.value)


def test_the_command_copies_and_keeps_no_credential(storage: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    a_result(out, mesh_ply=b"ply")
    finished = refuse("publish", out, f"{storage}/run", "--verify")
    assert finished.code == 0, finished.text
    assert "1 files sent" in finished.text.replace("\n", " ")
    assert SECRET not in finished.text
    for path in out.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    assert refuse("publish", tmp_path / "absent", storage).code == 2
    early = refuse("run", tmp_path, "-o", out, "--publish", "s3://a:b@c/d")
    assert early.code == 2
    assert "no user, password" in early.text.replace("\n", " ")


def test_a_folder_is_a_storage_too(tmp_path: Path) -> None:
    folder = a_result(tmp_path / "out", mesh_ply=b"ply")
    assert publish(folder, f"file://{tmp_path}/there", verify=True).sent == 1
    assert (tmp_path / "there" / "mesh.ply").read_bytes() == b"ply"
    assert (tmp_path / "there" / INDEX).is_file()
