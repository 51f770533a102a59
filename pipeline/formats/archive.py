"""Archives from outside: what they unpack to is bounded before anything is unpacked."""

import zipfile
from pathlib import Path

MOST_BYTES = 4 * 10**9
"""Far beyond any sound file of cameras or matches; a bomb of a few kB unpacks to more."""


def check_unpacked_size(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Refuse a zip archive that claims to unpack to more than that.

    Raises:
        ValueError: it does.
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > most_bytes:
        raise ValueError(f"it unpacks to {total / 1e9:.1f} GB")
