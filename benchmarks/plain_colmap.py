"""What COLMAP makes of a run's own features with default options."""

import shutil
from pathlib import Path

import pycolmap


def default_model(sfm: Path, photos: Path, folder: Path) -> Path:
    """Folder of the largest model of COLMAP's default mapping; the principal point is the centre.

    Args:
        sfm: artifact of the stage `sfm`, whose features and matches are used.
        photos: the upright photos.
        folder: to work in; a model that is there already is taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "0"
    if not model.is_dir():
        database = folder / "database.db"  # pycolmap writes into what it opens
        shutil.copy(sfm / "database.db", database)
        pycolmap.set_random_seed(0)
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads = 1
        found = pycolmap.incremental_mapping(database, photos, folder / "maps", options)
        largest = max(found.values(), key=lambda model: model.num_reg_images())
        model.mkdir()
        largest.write(model)
    return model
