"""Helm on a real cluster: what is installed, what is refused, and what becomes of a release whose Helm was killed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from idi.control.cluster.releases import keeps_data
from idi.parts.clients.helm import Helm, Reach, Revision, charts, document
from idi.parts.clients.helm_errors import HelmError
from tests.support.charts import Values, module, program, slot, storing
from tests.support.cluster.client import Client
from tests.support.cluster.objects import Namespace
from tests.support.platform import until

CHART = charts() / "module"
pytestmark = pytest.mark.requirement("C1")


@pytest.fixture
def helm(kube: Client, tmp_path: Path) -> Helm:
    return Helm(program("helm"), Reach(kube.kubeconfig), tmp_path / "helm")


def with_candidate() -> Values:
    return module(slots={"stable": slot(), "candidate": slot("1a2b3c4e", replicas=1)})


def deployments(kube: Client, namespace: Namespace) -> set[str]:
    found = kube.api.get(namespace.path("deployments", "apps/v1"))["items"]
    return {one["metadata"]["name"] for one in found}


def volumes(kube: Client, namespace: Namespace) -> dict[str, Any]:
    """What runs what keeps data, by name."""
    found = kube.api.get(namespace.path("statefulsets", "apps/v1"))["items"]
    return {one["metadata"]["name"]: one for one in found}


def left_pending(
    kube: Client,
    namespace: Namespace,
    values: Mapping[str, Any],
    reached: Callable[[], bool] = lambda: True,
) -> None:
    """Start Helm as `Helm` does, wait for pods that never get ready, and kill it while it waits."""
    name = values["module"]
    command = [str(program("helm")), "upgrade", name, str(CHART), "--install", "--reset-values", "-f", "-"]
    command += [
        "--server-side=true",
        "--wait",
        f"--namespace={namespace.name}",
        f"--kubeconfig={kube.kubeconfig}",
    ]
    expected = len(secrets(kube, namespace)) + 1
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert child.stdin is not None
    child.stdin.write(document(values))
    child.stdin.close()
    wanted = {f"{name}-{one}" for one, given in values["slots"].items() if given}

    def there() -> bool:
        made = {*deployments(kube, namespace), *volumes(kube, namespace)}
        return len(secrets(kube, namespace)) == expected and wanted <= made and reached()

    try:
        until(there, 20)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)


def secrets(kube: Client, namespace: Namespace) -> list[Any]:
    found: list[Any] = kube.api.get(namespace.path("secrets") + "?labelSelector=owner%3Dhelm")["items"]
    return found


async def test_a_release_is_installed_and_changed(kube: Client, namespace: Namespace, helm: Helm) -> None:
    assert await helm.status("jede", namespace.name) is None
    tried = await helm.upgrade("jede", CHART, namespace.name, module(), dry_run="server")
    assert "kind: Deployment" in tried.manifest
    assert await helm.status("jede", namespace.name) is None, "a dry run leaves nothing"
    first = await helm.upgrade("jede", CHART, namespace.name, with_candidate())
    assert (first.number, first.status) == (1, "deployed")
    assert deployments(kube, namespace) == {"jede-stable", "jede-candidate"}
    second = await helm.upgrade("jede", CHART, namespace.name, module(grace_s=3))
    assert second.number == 2
    assert deployments(kube, namespace) == {"jede-stable"}
    assert (await helm.get_values("jede", namespace.name))["grace_s"] == 3
    assert "candidate" in (await helm.get_values("jede", namespace.name, revision=1))["slots"]
    assert [one.status for one in await helm.history("jede", namespace.name)] == ["superseded", "deployed"]
    await helm.rollback("jede", namespace.name, 1)
    assert deployments(kube, namespace) == {"jede-stable", "jede-candidate"}
    await helm.uninstall("jede", namespace.name)
    assert await helm.history("jede", namespace.name) == []
    await helm.uninstall("jede", namespace.name)


async def test_values_are_all_there_is(kube: Client, namespace: Namespace, helm: Helm) -> None:
    """Nothing of the last values is kept, and what was changed by hand is brought back."""
    await helm.upgrade("jede", CHART, namespace.name, module(pool="ml"))
    path = namespace.path("deployments", "apps/v1") + "/jede-stable"
    image = {"name": "module", "image": "registry.example.com/other:1"}
    kube.kubectl(
        *("-n", namespace.name, "patch", "deployment/jede-stable", "--type=strategic", "-p"),
        json.dumps({"spec": {"template": {"spec": {"containers": [image]}}}}),
    )
    await helm.upgrade("jede", CHART, namespace.name, module())
    pod = kube.api.get(path)["spec"]["template"]["spec"]
    assert "nodeAffinity" not in pod["affinity"]
    assert pod["containers"][0]["image"] == slot()["image"]


async def test_a_first_install_that_was_killed_is_made_again(
    kube: Client, namespace: Namespace, helm: Helm
) -> None:
    left_pending(kube, namespace, module())
    found = await helm.status("jede", namespace.name)
    assert isinstance(found, Revision)
    assert found.status == "pending-install"
    with pytest.raises(HelmError, match="another Helm has been at work on it for") as busy:
        await helm.upgrade("jede", CHART, namespace.name, module())
    assert busy.value.kind == "busy"
    assert busy.value.retryable
    assert await helm.recover("jede", namespace.name) == (
        "jede was left pending-install and never deployed before, so it is uninstalled"
    )
    assert await helm.recover("jede", namespace.name) == ""
    assert (await helm.upgrade("jede", CHART, namespace.name, module())).status == "deployed"


async def test_an_upgrade_that_was_killed_is_taken_back(
    kube: Client, namespace: Namespace, helm: Helm
) -> None:
    await helm.upgrade("jede", CHART, namespace.name, module())
    await helm.upgrade("jede", CHART, namespace.name, module(grace_s=3))
    left_pending(kube, namespace, with_candidate())
    assert (await helm.history("jede", namespace.name))[-1].status == "pending-upgrade"
    assert (
        await helm.recover("jede", namespace.name)
        == "jede was left pending-upgrade and is back at its revision 2"
    )
    assert deployments(kube, namespace) == {"jede-stable"}, "what only the abandoned one had added is gone"
    assert (await helm.get_values("jede", namespace.name))["grace_s"] == 3
    assert (await helm.upgrade("jede", CHART, namespace.name, module())).status == "deployed"


async def test_what_keeps_data_is_not_taken_back(kube: Client, namespace: Namespace, tmp_path: Path) -> None:
    """An older program on what a newer one has written may destroy it."""
    helm = Helm(program("helm"), Reach(kube.kubeconfig), tmp_path / "helm", keeps=keeps_data)

    def generation() -> int:
        return int(volumes(kube, namespace)["sfl-stable"]["metadata"]["generation"])

    await helm.upgrade("sfl", CHART, namespace.name, storing())
    left_pending(kube, namespace, storing(grace_s=3), lambda: generation() == 2)
    assert (await helm.history("sfl", namespace.name))[-1].status == "pending-upgrade"
    assert await helm.recover("sfl", namespace.name) == (
        "sfl was left pending-upgrade and is completed, for it keeps data"
    )
    assert (await helm.get_values("sfl", namespace.name))["grace_s"] == 3
    assert (await helm.history("sfl", namespace.name))[-1].status == "deployed"
    await helm.upgrade("sfl", CHART, namespace.name, storing(grace_s=3))
    assert generation() == 2, "its pod was never asked to be the former one"
    # One that failed is left to the next upgrade.
    hasty = Helm(program("helm"), Reach(kube.kubeconfig), tmp_path / "hasty", timeout_s=3, keeps=keeps_data)
    with pytest.raises(HelmError):
        await hasty.upgrade("sfl", CHART, namespace.name, storing(grace_s=4), wait=True)
    assert (await helm.history("sfl", namespace.name))[-1].status == "failed"
    assert await helm.recover("sfl", namespace.name) == ""
    await helm.upgrade("sfl", CHART, namespace.name, storing(grace_s=4))
    assert generation() == 3
    # What has only now got its volume ran without one before, so both would run: that one goes back.
    await helm.upgrade("jede", CHART, namespace.name, module())
    left_pending(kube, namespace, {**storing(), "module": "jede"})
    assert (
        await helm.recover("jede", namespace.name)
        == "jede was left pending-upgrade and is back at its revision 1"
    )
    assert deployments(kube, namespace) == {"jede-stable"}
    assert set(volumes(kube, namespace)) == {"sfl-stable"}


async def test_one_that_is_pending_for_longer_than_any_run_is_put_right_by_the_next(
    kube: Client, namespace: Namespace, tmp_path: Path
) -> None:
    patient, hasty = (
        Helm(program("helm"), Reach(kube.kubeconfig), tmp_path / f"helm-{longest_s}", abandoned_s=longest_s)
        for longest_s in (3600, 1)
    )
    await patient.upgrade("jede", CHART, namespace.name, module())
    left_pending(kube, namespace, with_candidate())
    with pytest.raises(HelmError, match="has been at work on it"):
        await patient.upgrade("jede", CHART, namespace.name, module())
    await asyncio.sleep(1)
    assert (await hasty.upgrade("jede", CHART, namespace.name, module())).status == "deployed"
    assert deployments(kube, namespace) == {"jede-stable"}


async def test_where_there_is_no_way_back_there_is_one_forward(
    kube: Client, namespace: Namespace, helm: Helm
) -> None:
    """The last good revision cannot be applied any more; the next one still can."""
    await helm.upgrade("jede", CHART, namespace.name, module(networkPolicy={"callers": ["pas"]}))
    left_pending(kube, namespace, with_candidate())
    stored = secrets(kube, namespace)
    good = next(one for one in stored if one["metadata"]["labels"]["version"] == "1")
    release = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(good["data"]["release"]))))
    release["manifest"] = release["manifest"].replace("clusterIP: None", "clusterIP: none-such")
    data = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(release).encode()))).decode()
    kube.api.patch(namespace.path("secrets") + f"/{good['metadata']['name']}", {"data": {"release": data}})
    with pytest.raises(HelmError, match="Cannot take jede back to its revision 1"):
        await helm.recover("jede", namespace.name)
    assert (await helm.upgrade("jede", CHART, namespace.name, module())).status == "deployed"


async def test_what_a_failed_one_added_does_not_stay(
    kube: Client, namespace: Namespace, tmp_path: Path
) -> None:
    helm = Helm(program("helm"), Reach(kube.kubeconfig), tmp_path / "helm", timeout_s=3)
    await helm.upgrade("jede", CHART, namespace.name, module())
    with pytest.raises(HelmError, match="not ready in time") as late:
        await helm.upgrade("jede", CHART, namespace.name, with_candidate(), wait=True)
    assert late.value.kind == "late"
    assert (await helm.history("jede", namespace.name))[-1].status == "failed"
    assert deployments(kube, namespace) == {"jede-stable", "jede-candidate"}
    await helm.upgrade("jede", CHART, namespace.name, module())
    assert deployments(kube, namespace) == {"jede-stable"}


def running(release: str) -> Iterator[str]:
    """The command lines of the Helms that work on it."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == "helm" and release in words:
            yield " ".join(words)


async def test_a_caller_that_is_cancelled_leaves_no_helm_and_no_lock(
    kube: Client, namespace: Namespace, helm: Helm
) -> None:
    async with asyncio.TaskGroup() as group:
        values = module("odd", slots={"stable": slot(env=[{"name": "ODD", "value": "not-to-be-seen"}])})
        task = group.create_task(helm.upgrade("odd", CHART, namespace.name, values, wait=True))
        path = namespace.path("deployments", "apps/v1")
        await asyncio.to_thread(kube.api.until, path, bool, 20, "the deployment")
        [line] = running("odd")
        assert "not-to-be-seen" not in line, "values go by standard input"
        task.cancel()
    assert not list(running("odd"))
    found = await helm.status("odd", namespace.name)
    assert found is not None
    assert found.status == "failed"
    await helm.upgrade("odd", CHART, namespace.name, module("odd"))


async def test_one_release_is_worked_on_by_one_and_several_at_once(
    kube: Client, namespace: Namespace, helm: Helm
) -> None:
    async with asyncio.TaskGroup() as group:
        for grace in range(3):
            group.create_task(helm.upgrade("jede", CHART, namespace.name, module(grace_s=grace)))
        for name in ("cam", "pas"):
            group.create_task(helm.upgrade(name, CHART, namespace.name, module(name)))
    assert len(await helm.history("jede", namespace.name)) == 3
    assert deployments(kube, namespace) == {"jede-stable", "cam-stable", "pas-stable"}


async def test_mistakes_are_told_with_a_way_out(
    kube: Client, namespace: Namespace, helm: Helm, tmp_path: Path
) -> None:
    with pytest.raises(HelmError, match=r"got number, want null or string; .*'colour' not allowed") as values:
        await helm.upgrade("jede", CHART, namespace.name, module(pool=3, colour=1))
    assert values.value.kind == "values"
    with pytest.raises(HelmError, match="there is no namespace nowhere") as missing:
        await helm.upgrade("jede", CHART, "nowhere", module())
    assert "Create it" in missing.value.way_out
    kube.api.create(
        namespace.path("services"), {"metadata": {"name": "jede"}, "spec": {"ports": [{"port": 80}]}}
    )
    with pytest.raises(HelmError, match='Service "jede" is there already') as foreign:
        await helm.upgrade("jede", CHART, namespace.name, module())
    assert foreign.value.kind == "foreign"
    away = Helm(program("helm"), Reach(unreachable(kube, tmp_path)), tmp_path / "away")
    with pytest.raises(HelmError, match="API server cannot be reached") as unreached:
        await away.upgrade("jede", CHART, namespace.name, module())
    assert unreached.value.retryable


def unreachable(kube: Client, folder: Path) -> Path:
    """The same kubeconfig, with a port on which nobody listens."""
    path = folder / "away.kubeconfig"
    path.touch(0o600)
    server = f"https://{kube.api.host}:{kube.api.port}"
    path.write_text(kube.kubeconfig.read_text().replace(server, "https://127.0.0.1:1"))
    return path


async def test_a_field_that_nobody_knows_is_refused_by_the_cluster(
    namespace: Namespace, helm: Helm, tmp_path: Path
) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: wrong\nversion: 1.0.0\n")
    (chart / "templates" / "one.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: one}\nspec: {selectr: {a: b}, ports: [{port: 80}]}\n"
    )
    with pytest.raises(HelmError, match="selectr"):
        await helm.upgrade("wrong", chart, namespace.name, {})
