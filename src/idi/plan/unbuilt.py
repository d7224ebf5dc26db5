"""What a declaration may say already and this version cannot do yet, all of it on a cluster."""

from __future__ import annotations

from idi.declaration.types import KubernetesTarget, Platform


def unbuilt(platform: Platform) -> tuple[str, str]:
    """A sentence where this version cannot do it, and what helps; else empty."""
    if not isinstance(platform.target, KubernetesTarget):
        return "", ""
    where = f"environments.{platform.environment}.target.kubernetes"
    if platform.target.images is None:
        return (
            f"Environment '{platform.environment}' does not say which images of IDI it is to run.",
            f"Until there are releases, build them (make images) and name them by digest under {where}.images.",
        )
    folders = [name for name, module in platform.modules.items() if "@sha256:" not in module.image]
    if folders:
        return (
            f"{', '.join(folders)}: a cluster takes images by digest (name@sha256:...), and this version builds none.",
            "Build and push them (make images does for the stand-ins), and name them in the environment.",
        )
    if not platform.target.images.relay and any(one.uses_events() for one in platform.modules.values()):
        return (
            f"Environment '{platform.environment}' has events and does not say which image relay and broker are.",
            f"Name it by digest under {where}.images.relay (make images builds it).",
        )
    return "", ""
