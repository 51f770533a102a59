"""Whether everything that a run is asked for is there already."""

from flows.case_folder import CaseFolder
from flows.plan import Choice, external_files, look_ahead
from flows.request import RunRequest
from flows.settings import settings_from
from pipeline.errors import InputError
from pipeline.store.manifest import Manifest


def finished_results(request: RunRequest) -> dict[str, Manifest] | None:
    """The current results of a run with nothing left to do, by stage; else None.

    Only where the folder's last run asked for the same: results of other options that happen to
    be in the store still have to be brought to the top of the folder by a run. Results that were
    deleted at the top are put back.

    Raises:
        InputError: bad options.
    """
    folder = CaseFolder(request.out)
    choice = Choice.of(request.start, request.stop, request.force, request.paths)
    if choice.forced or not folder.exists():
        return None
    settings = settings_from(request.settings)
    try:
        record = folder.load_record()
        external = external_files(request.paths, folder.hashes())
    except InputError:
        return None  # the run itself says what is wrong
    prospects = look_ahead(folder, settings, external, choice)
    found = {p.stage: p.manifest for p in prospects if p.manifest and not p.reasons}
    same = all(record.keys.get(name) == m.key for name, m in found.items())
    states = {p.stage: folder.load_state(p.stage) for p in prospects}
    ended = all(s and s.status in ("done", "cached") for s in states.values())
    if len(found) < len(prospects) or not same or not ended:
        return None
    folder.publish_results(found)
    return found
