"""What has to be in place before a process takes its seat: free ports, files, environment.

Ports are chosen once and kept. Only when a port turns out to be held by somebody else at the moment it
is needed, and that somebody is not a leftover of our own, is another one chosen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from idi.parts.errors import Bug, PartError
from idi.parts.targets.interface import SidecarSpec
from idi.parts.targets.local.ports import choose_ports
from idi.parts.targets.local.probes import Asked
from idi.parts.targets.local.process import ProcessSpec, marker, shell
from idi.parts.targets.local.seats import Occupant, Seat, by_kind, purposes
from idi.parts.targets.local.secrets import NOTHING, Supplied
from idi.parts.targets.local.site import Site
from idi.parts.targets.local.strays import end, marked_now
from idi.parts.targets.references import Place, command_line, environment, needed
from idi.world.types import InstanceId, RevisionSpec

KINDS = {"module": ("port",), "sidecar": ("mesh", "outbound")}
"""Which ports the process of each role listens on."""


def new_seat(site: Site, spec: RevisionSpec, slot: int, now: float) -> Seat:
    """A seat with ports that are free now. Raises `PartError` when there are none, `Bug` on a bad spec."""
    instance = InstanceId(f"{spec.module}-{slot}")
    chosen = choose_ports(site.platform_hash, instance, purposes(spec), site.taken(), site.free)
    seat = Seat(
        instance,
        spec,
        by_kind(chosen, "port"),
        by_kind(chosen, "mesh"),
        by_kind(chosen, "outbound"),
        created=now,
    )
    # A reference or a port that nobody can fill is to be the caller's error, not that of a task later.
    wanted = needed(spec)
    stand_in = Supplied(dict.fromkeys(wanted.texts, ""), dict.fromkeys(wanted.files, ""))
    place = place_of(site, seat, stand_in)
    command_line(spec.command, spec, place)
    environment(spec, place, {})
    if not spec.readiness.command and spec.readiness.port not in seat.ports:
        raise Bug(
            f"{spec.module} is to be asked on its port '{spec.readiness.port}', which it does not have."
        )
    return seat


def attached_seat(site: Site, spec: RevisionSpec, slot: int, port: int, now: float) -> Seat:
    """A seat for a module that somebody else runs on `port` (its default port); its other ports are unknown."""
    instance = InstanceId(f"{spec.module}-{slot}")
    first = spec.ports[0].name
    wanted = [each for each in purposes(spec) if each == f"mesh:{first}" or each.startswith("outbound:")]
    chosen = choose_ports(site.platform_hash, instance, wanted, site.taken(), site.free)
    return Seat(
        instance,
        spec,
        {first: port},
        by_kind(chosen, "mesh"),
        by_kind(chosen, "outbound"),
        created=now,
        attached=True,
    )


def lent_seat(site: Site, spec: RevisionSpec, slot: int, now: float, by: str, holder: Occupant) -> Seat:
    """A seat like every other, in which somebody starts the module themselves."""
    return replace(new_seat(site, spec, slot, now), attached=True, by=by, holder=holder)


async def claim_ports(site: Site, seat: Seat, role: str) -> set[str]:
    """Make sure that the ports of this role are free; the kinds of which one had to be replaced."""
    if not _occupied(site, seat, role):
        return set()
    everything = await marked_now(site.machine, site.platform_hash)
    leftovers = [one for one in everything if (one.name, one.role) == (seat.instance, role)]
    await end(site.machine, leftovers, grace_s=1.0)
    occupied = _occupied(site, seat, role)
    chosen = choose_ports(site.platform_hash, seat.instance, occupied, site.taken(), site.free)
    for kind, ports in (("port", seat.ports), ("mesh", seat.mesh), ("outbound", seat.outbound)):
        ports.update(by_kind(chosen, kind))
    return {purpose.partition(":")[0] for purpose in chosen}


def _occupied(site: Site, seat: Seat, role: str) -> list[str]:
    by_name = {"port": seat.ports, "mesh": seat.mesh, "outbound": seat.outbound}
    return [
        f"{kind}:{name}"
        for kind in KINDS[role]
        for name, port in by_name[kind].items()
        if not site.free(port)
    ]


def module_process(site: Site, seat: Seat, secrets: Supplied = NOTHING) -> ProcessSpec:
    """The module's process; makes its data folder."""
    spec = seat.spec
    place = place_of(site, seat, secrets)
    if place.data_dir is not None:
        make_folder(place.data_dir)
    return ProcessSpec(
        name=seat.instance,
        role="module",
        argv=shell(command_line(spec.command, spec, place)),
        env=environment(spec, place, site.inherited),
        cwd=site.directory / spec.directory,
        log=site.logs.path(seat.instance),
        grace_s=spec.grace_s,
    )


def sidecar_process(site: Site, seat: Seat, sidecar: SidecarSpec) -> ProcessSpec:
    """The sidecar's process; writes its files."""
    write_files(sidecar.files)
    return ProcessSpec(
        name=seat.instance,
        role="sidecar",
        argv=sidecar.argv,
        env={**site.inherited, **sidecar.environment},
        cwd=site.runtime_dir,
        log=site.logs.path(f"{seat.instance}.sidecar"),
    )


def asked(site: Site, seat: Seat, secrets: Supplied = NOTHING) -> Asked:
    """Where and how this seat's readiness is asked; only a command has an environment.

    Of a module that somebody else runs only its default port is known, and its environment is theirs.
    """
    theirs = seat.attached and not seat.by
    bare = theirs or not seat.spec.readiness.command
    known = seat.ports
    if theirs:
        known = {port.name: next(iter(seat.ports.values())) for port in seat.spec.ports}
    return Asked(
        ports=known,
        machine=site.machine,
        env=site.inherited if bare else environment(seat.spec, place_of(site, seat, secrets), site.inherited),
        cwd=site.directory / seat.spec.directory,
        name=seat.instance,
        mark=marker(site.platform_hash, seat.instance, "probe"),
    )


def write_files(files: Mapping[str, bytes]) -> None:
    """Files that only this user may read, each replaced whole."""
    for name, content in files.items():
        path = Path(name)
        beside = path.with_name(f"{path.name}.new")
        if _holds(path, content):
            continue  # what starts again needs no room on a full disk
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(content)
            beside.rename(path)
        except OSError as error:
            raise PartError(f"{path} cannot be written: {error.strerror}.") from error


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content and path.stat().st_mode & 0o777 == 0o600
    except OSError:
        return False


def make_folder(path: Path) -> None:
    """A folder that only this user may enter."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PartError(f"{path} cannot be made: {error.strerror}.") from error


def place_of(site: Site, seat: Seat, secrets: Supplied) -> Place:
    """What the references of a seat's revision are filled from."""
    data_dir = site.data_dir / seat.spec.module if seat.spec.storage else None
    return Place(seat.instance, seat.ports, seat.outbound, data_dir, secrets.texts, secrets.files)
