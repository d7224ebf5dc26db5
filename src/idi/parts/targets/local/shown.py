"""A module's environment for whoever looks at it, or starts the module themselves."""

from __future__ import annotations

from idi.parts.targets.interface import Variable
from idi.parts.targets.local.seating import place_of
from idi.parts.targets.local.seats import Seat
from idi.parts.targets.local.secrets import Supplied, as_text, supplied
from idi.parts.targets.local.site import Site
from idi.parts.targets.references import Place, needed, own
from idi.world.types import InstanceId, RevisionSpec


async def shown(site: Site, spec: RevisionSpec, seat: Seat | None, *, reveal: bool) -> list[Variable]:
    """As the instance in `seat` has it. Without `reveal` nobody is asked for a secret."""
    wanted = needed(spec)
    secrets = Supplied(
        {}, {path: site.secret_files.path(seat.instance, path) for path in wanted.files} if seat else {}
    )
    if reveal and seat and seat.by:
        secrets = await supplied(site.supply, site.secret_files, seat.instance, spec)
    elif reveal and wanted.texts:
        values = await site.supply(spec, wanted.texts)
        secrets = Supplied({path: as_text(path, value) for path, value in values.items()}, secrets.files)
    if seat is None:
        place = Place(InstanceId(""), {}, {}, None, secrets.texts)
        return own(spec, place, seated=False, revealed=reveal)
    return own(spec, place_of(site, seat, secrets), seated=True, revealed=reveal)
