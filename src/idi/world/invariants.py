"""What must hold in every world, checked by fixtures at each teardown and after each fold in tests."""

from __future__ import annotations

from idi.world.types import World


def violations(world: World) -> list[str]:
    """Sentences about what does not hold; empty when all is well."""
    found: list[str] = []
    seen_ids: set[str] = set()
    ports: dict[tuple[str, int], str] = {}
    for name, module in world.modules.items():
        for revision_id, revision in module.revisions.items():
            if revision.spec.module != name:
                found.append(f"revision {revision_id} of {revision.spec.module} stands under {name}")
            if revision.spec.revision != revision_id:
                found.append(f"revision {revision.spec.revision} stands under {revision_id}")
            if revision.count < 0:
                found.append(f"{name} {revision_id} keeps {revision.count} instances")
        for instance_id, instance in module.instances.items():
            if instance.id != instance_id or instance.module != name:
                found.append(f"instance {instance.id} of {instance.module} stands under {name}/{instance_id}")
            if instance_id in seen_ids:
                found.append(f"instance id {instance_id} twice")
            seen_ids.add(instance_id)
            if (
                instance.supervised
                and instance.revision not in module.revisions
                and instance.state != "stopping"
            ):
                found.append(f"{instance_id} runs revision {instance.revision}, which {name} does not have")
            for port in (*instance.ports.values(), *instance.mesh.values(), *instance.outbound.values()):
                if port and instance.supervised:
                    holder = ports.setdefault((instance.address, port), instance_id)
                    if holder != instance_id:
                        found.append(f"{instance_id} and {holder} share port {port}")
        for revision_id, weight in module.shares.items():
            if weight < 0:
                found.append(f"{name} {revision_id} has weight {weight}")
    return found


def validate(world: World) -> None:
    """Raise `AssertionError` with every violation."""
    found = violations(world)
    if found:
        raise AssertionError("the world is inconsistent: " + "; ".join(found))
