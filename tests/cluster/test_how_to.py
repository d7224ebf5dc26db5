"""The page about Kubernetes does what it says: its file is written, its commands run, its outputs compared."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.cluster.client import Client
from tests.support.cluster.environment import IDI, Environment
from tests.support.cluster.layout import API, cache
from tests.support.pages import Shell, blocks, pattern
from tests.support.platform import ROOT

PAGE = ROOT / "docs" / "how-to" / "kubernetes.md"


@pytest.mark.requirement("K1", "K4")
def test_every_step_of_the_page_does_what_it_says(
    kube: Client, images: Mapping[str, str], helm: Path, tmp_path: Path
) -> None:
    place = Environment(tmp_path, kube, images, helm, "shop")
    (tmp_path / "home").mkdir()
    variables = {
        # Only what the page asks for: idi, and kubectl beside it.
        "PATH": f"{IDI.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "KUBECONFIG": str(kube.kubeconfig),
        "KUBECACHEDIR": str(cache() / "kubectl"),
        "IDI_HELM": str(helm),
    }
    shell = Shell(tmp_path, variables)
    printed, done = "", 0
    try:
        for block in blocks(PAGE):
            if block.file:
                (tmp_path / block.file).write_text(here(block.text, place))
            elif block.language == "sh":
                printed = shell.run(block, block.text)
                done += 1
            elif block.language == "text":  # else it is a piece of a declaration, to read
                assert pattern(block.text).fullmatch(printed), (
                    f"{block.place} promises\n{block.text}\nbut there came\n{printed}\n{place.told()}"
                )
    finally:
        shell.close()
        kube.kubectl("delete", "namespace", place.namespace, "--ignore-not-found", "--wait=false")
    assert done >= 6


def here(text: str, place: Environment) -> str:
    """With this cluster's context, name servers and images."""
    kinds = {
        "stock": "standin-python",
        "prices": "standin-python",
        "control": "control",
        "sidecar": "sidecar",
    }
    text = re.sub(
        r"registry\.example\.com/team/(\w+)@sha256:\w+", lambda found: place.images[kinds[found[1]]], text
    )
    return re.sub(r"context: staging\b", f"context: {place.context}\n        dns: [{API}/32]", text)
