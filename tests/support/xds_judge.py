"""The one thing of an API server that a replica asks: whose token this is. Plain HTTP would not be asked; it has TLS.

`credential-of-<pod>` is the token of a pod's proxy, and of a replica by the name of that.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.envoy import Authority, free_port
from tests.support.envoy_pods import project

NAMESPACE = "shop-test"


async def review(request: web.Request) -> web.Response:
    body = await request.json()
    token = str(body["spec"]["token"])
    pod = token.removeprefix("credential-of-")
    status: dict[str, Any] = {"authenticated": False}
    if pod != token:
        status = {
            "authenticated": True,
            "audiences": ["idi"],
            "user": {
                "username": f"system:serviceaccount:{NAMESPACE}:idi-{pod.partition('-')[0]}",
                "extra": {
                    "authentication.kubernetes.io/pod-name": [pod],
                    "authentication.kubernetes.io/pod-uid": ["uid"],
                },
            },
        }
    return web.json_response({**body, "status": status}, status=201)


@asynccontextmanager
async def judge(folder: Path) -> AsyncIterator[dict[str, str]]:
    """The environment of who asks it; `folder` is the pod's folder of its service account."""
    authority = Authority("cluster")
    made = authority.issue("spiffe://cluster/api", dns="localhost")
    project(
        folder,
        {
            "api.pem": made.chain + made.key,
            "ca.crt": authority.roots,
            "token": b"own",
            "namespace": NAMESPACE.encode(),
        },
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "api.pem")
    app = web.Application()
    app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", review)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
    try:
        yield {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": str(port)}
    finally:
        await runner.cleanup()
