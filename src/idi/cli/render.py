"""`idi render`: documents that follow from the declaration, for other people's tools."""

from __future__ import annotations

import json

from idi.cli.commands import Command
from idi.cli.failure import DONE, FAILED, USAGE, Failure
from idi.cli.invocation import Invocation
from idi.cli.names import unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.releases import Release
    from idi.declaration.types import Platform


def arguments(parser: ArgumentParser) -> None:
    from idi.cli.parser import add_globals

    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True, title="What")
    asyncapi = what.add_parser("asyncapi", help="events as an AsyncAPI 3.0 document")
    asyncapi.add_argument("module", nargs="?", metavar="MODULE", help="one module's own view (default: all)")
    add_globals(asyncapi)
    helm = what.add_parser("helm", help="values of every release, and the lines that install them by hand")
    helm.add_argument("folder", metavar="FOLDER", help="where the files are written")
    add_globals(helm)


def run(invocation: Invocation) -> int:
    if invocation.options.what == "helm":
        return helm(invocation)
    from idi.cli.validate import checked
    from idi.plan.asyncapi import asyncapi

    platform = checked(invocation, invocation.text()).platform
    name = invocation.options.module
    modules = {str(known): module for known, module in platform.modules.items()}
    if name and name not in modules:
        raise unknown(name, list(modules))
    print(json.dumps(asyncapi(platform, modules.get(name)), indent=2, ensure_ascii=False))
    return DONE


def helm(invocation: Invocation) -> int:
    from pathlib import Path

    from idi.api.environments import namespace_of
    from idi.api.errors import IdiError
    from idi.api.releases import releases
    from idi.cli.validate import doable
    from idi.declaration.plain import written

    platform = doable(invocation, invocation.text()).platform
    try:
        found = releases(platform)
    except IdiError as error:
        raise Failure(error.message, way_out=error.way_out, code=USAGE) from error
    folder = Path(invocation.options.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "namespace.yaml").write_text(written(namespace_of(platform)), encoding="utf-8")
        for release in found:
            (folder / f"{release.name}.yaml").write_text(written(release.values), encoding="utf-8")
    except OSError as error:
        raise Failure(
            f"The files cannot be written to {folder}: {error.strerror}.", "Name another folder.", code=FAILED
        ) from error
    lines = commands(platform, folder, found)
    if invocation.json:
        names = [{"name": release.name, "waits": release.waits} for release in found]
        invocation.screen.document({"namespace": platform.namespace, "releases": names, "commands": lines})
        return DONE
    print("\n".join(lines))
    if waiting := [release.name for release in found if release.waits]:
        invocation.screen.err(
            f"Pods of {', '.join(waiting)} wait for Secrets, which control makes: by idi up, and idi secrets set where "
            "they are the module's own."
        )
    return DONE


def commands(platform: Platform, folder: object, found: list[Release]) -> list[str]:
    """What a person types, in this order."""
    import shlex

    from idi.api.environments import target_of

    context = shlex.quote(target_of(platform).context)
    lines = [f"kubectl --context {context} apply --server-side -f {shlex.quote(f'{folder}/namespace.yaml')}"]
    for release in found:
        file = shlex.quote(f"{folder}/{release.name}.yaml")
        lines.append(
            f"helm --kube-context {context} install {release.name} {shlex.quote(str(release.chart))} "
            f"-n {platform.namespace} -f {file}"
        )
    return lines


COMMANDS = {
    "render": Command(
        run,
        arguments,
        examples=(
            "idi render asyncapi > asyncapi.json",
            "idi render asyncapi jede",
            "idi render helm by-hand --env staging",
        ),
        about="Documents that follow from the declaration, for other people's tools. Nothing has to run.",
    )
}
