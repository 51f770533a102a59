"""Rendered photos with known cameras, taken once through ingest, sfm, scene and matches."""

from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.formats.views import load_views, registered_names
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import Similarity, umeyama
from pipeline.verdict import Verdict
from stages.base import StageContext
from stages.registry import find_stage
from tests.sfm.box_scene import BoxTruth, write_box_photos

_KEPT: list[TemporaryDirectory] = []


@dataclass(frozen=True)
class PhotoRun:
    """Folders of one run: photos, artifacts by stage name, and the truth."""

    photos: Path
    artifacts: Path
    truth: BoxTruth
    verdicts: dict[str, Verdict]

    def folder(self, stage: str) -> Path:
        """Artifact of one stage."""
        return self.artifacts / stage

    @property
    def names(self) -> list[str]:
        """Photo names of the registered views, by index."""
        return registered_names(load_views(self.folder("scene") / "views.json"))


def run_stage(
    name: str,
    artifacts: Path,
    external: dict[str, Path] | None = None,
    options: dict[str, Any] | None = None,
    out_name: str | None = None,
) -> Verdict:
    """Run one stage on the artifacts of the stages before it; writes `artifacts/<out_name>`."""
    stage = find_stage(name)
    out = artifacts / (out_name or name)
    out.mkdir(parents=True)
    work = artifacts / "work" / (out_name or name)
    work.mkdir(parents=True, exist_ok=True)
    context = StageContext(
        inputs={upstream: artifacts / upstream for upstream in stage.inputs},
        external=external or {},
        config=stage.config_type.model_validate(options or {}),
        out=out,
        work=work,
        seed=0,
    )
    verdict: Verdict = import_module(f"stages.{name}").run(context)
    return verdict


@lru_cache(maxsize=1)
def box_run() -> PhotoRun:
    """Photos of a box on a table through all four stages; computed once a test session."""
    home = TemporaryDirectory(prefix="photo_run_")
    _KEPT.append(home)
    root = Path(home.name)
    truth = write_box_photos(root / "photos")
    artifacts = root / "artifacts"
    verdicts = {"ingest": run_stage("ingest", artifacts, {"photos": root / "photos"})}
    for name in ("sfm", "scene", "matches"):
        verdicts[name] = run_stage(name, artifacts)
    return PhotoRun(root / "photos", artifacts, truth, verdicts)


def to_truth(
    c2w: NDArray[np.float64], names: list[str], truth: BoxTruth
) -> tuple[Similarity, NDArray[np.float64]]:
    """Similarity that takes the cameras (N, 4, 4) onto the truth, and rotation errors (N,) deg."""
    true_c2w = truth.c2w[[truth.names.index(name) for name in names]]
    similarity = umeyama(c2w[:, :3, 3], true_c2w[:, :3, 3])
    aligned = similarity.apply_c2w(c2w)
    return similarity, rotation_angles_deg(aligned[:, :3, :3], true_c2w[:, :3, :3])
