"""Which files make up a case in the PoRF data convention, whoever made it."""

from pathlib import Path

from pipeline.errors import InputError

CAMERA_FILES = ("cameras_colmap.npz", "cameras_arkit.npz")
"""Cameras to refine, in the order in which they are looked for."""

TRUTH_FILE = "cameras.npz"
IMAGE_FOLDERS = ("image", "rgb")
MASK_FOLDER = "mask"
MATCHES_FOLDER = "colmap_matches"
AUTO = "auto"


def image_folder(case: Path) -> Path:
    """The folder of undistorted views.

    Raises:
        InputError: not a case.
    """
    for name in IMAGE_FOLDERS:
        if (case / name).is_dir():
            return case / name
    if not case.is_dir():
        raise InputError(f"no folder {case}: expected a case in the PoRF data convention")
    raise InputError(
        f"{case} has no image/ folder: expected a case in the PoRF data convention",
        hint=f"image/000.png …, {CAMERA_FILES[0]} and {MATCHES_FOLDER}/000000.npz …; for photos "
        "without cameras use `porf run`",
    )


def camera_file(case: Path, wanted: str = AUTO) -> Path:
    """The cameras to refine: the file named `wanted`, or the first usual one.

    Raises:
        InputError: it is not there.
    """
    names = CAMERA_FILES if wanted == AUTO else (wanted,)
    for name in names:
        if (case / name).is_file():
            return case / name
    present = sorted(path.name for path in case.glob("*.npz"))
    listed = ", ".join(present) if present else "no .npz file"
    raise InputError(
        f"{case} has no {' or '.join(names)}: there is {listed}",
        hint="name the file with --set scene.case_cameras=FILE.npz",
    )


def case_files(case: Path) -> list[Path]:
    """Every file that can reach a result: cameras, views, masks and matches, sorted.

    Raises:
        InputError: not a case.
    """
    folders = (image_folder(case), case / MASK_FOLDER, case / MATCHES_FOLDER)
    files = [path for path in case.glob("*.npz") if path.name != TRUTH_FILE]
    for folder in folders:
        if folder.is_dir():
            files += [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    return sorted(files)
