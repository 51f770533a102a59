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


def is_case(folder: Path) -> bool:
    """Whether a folder holds views, cameras to refine and matches."""
    views = any((folder / name).is_dir() for name in IMAGE_FOLDERS)
    cameras = any((folder / name).is_file() for name in CAMERA_FILES)
    return views and cameras and (folder / MATCHES_FOLDER).is_dir()


def own_truth(case: Path) -> tuple[Path | None, str]:
    """True cameras that lie in the case, and why they are not taken if they are not.

    Raises:
        InputError: not a case, or the file cannot be read.
    """
    path = case / TRUTH_FILE
    if not path.is_file():
        return None, ""
    from pipeline.formats.case import sorted_images  # noqa: PLC0415  (loads numpy and Pillow)
    from pipeline.formats.idr import load_idr_cameras  # noqa: PLC0415

    views, true = len(sorted_images(image_folder(case))), len(load_idr_cameras(path))
    if views == true:
        return path, ""
    return None, f"{TRUTH_FILE} has {true} cameras for {views} images: not taken as ground truth"


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
