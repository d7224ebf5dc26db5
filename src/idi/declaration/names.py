"""What names, paths and addresses look like: the patterns, and how to say them."""

from __future__ import annotations

from idi.declaration.shapes import Text

_LABEL = r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?"
_LABEL_WORDS = "lower-case letters, digits and '-' (at most 32, beginning with a letter)"
_SEGMENT = r"[A-Za-z0-9_~!$&'()*+,;=:@%-][A-Za-z0-9._~!$&'()*+,;=:@%-]*"
_DNS = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*"
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
"""As Kubernetes names most objects."""


def label(example: str, many: str = "") -> Text:
    return Text(f"a name of {_LABEL_WORDS}", _LABEL, example, many=many)


MODULE = label("jede")
EXTERNAL = label("warehouse")
CALLED = label("cam", "modules and externals")
PLATFORM = label("junzi")
CLIENT = label("pilot")
ENVIRONMENT = label("staging")
PORT = label("http")

SCOPE = Text(
    "a scope such as jede.read (letters, digits and . _ : / * -, beginning with a letter or digit)",
    r"[A-Za-z0-9][A-Za-z0-9._:/*-]{0,127}",
    "jede.read",
)
ATTRIBUTE = Text(
    "an attribute of CloudEvents such as subject (lower-case letters and digits)",
    r"[a-z0-9]+",
    "subject",
    longest=64,
)
EVENT = Text(
    "an event type such as jede.decided (letters, digits, '_' and '-' between dots)",
    r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*",
    "jede.decided",
    longest=128,
)
VARIABLE = Text(
    "an environment variable's name (letters, digits and '_', not beginning with a digit)",
    r"[A-Za-z_][A-Za-z0-9_]*",
    "LOG_LEVEL",
    longest=128,
)
SECRET = Text(
    "a path in the secret store such as jede/database (letters, digits and . _ - between slashes)",
    r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*",
    "jede/database",
    longest=256,
)
PREFIX = Text(
    "a path that begins and ends with '/' such as /v1/jede/", rf"/({_SEGMENT}/)*", "/v1/jede/", longest=512
)
PATH = Text(
    "a path that begins with '/' such as /ready", rf"/({_SEGMENT}/)*({_SEGMENT})?", "/ready", longest=512
)
PROBE = Text(
    "a path that begins with '/' such as /ready",
    rf"/({_SEGMENT}/)*({_SEGMENT})?(\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    "/ready",
    longest=512,
)
HOST = Text(
    "a host name such as api.example.com or *.example.com", rf"(\*\.)?{_DNS}", "api.example.com", longest=253
)
HEADER = Text(
    "a header's name in lower case such as x-tenant", r"[a-z0-9][a-z0-9_.-]*", "x-tenant", longest=128
)
HEADER_VALUE = Text(
    "the header's value (printable, no blanks at its ends)", r"[!-~]([ -~]*[!-~])?", "acme", longest=1024
)
ADDRESS = Text(
    "HOST:PORT such as 127.0.0.1:5432 or db.example.com:5432 (IPv6 in brackets, quoted)",
    rf"({_DNS}|\[[0-9A-Fa-f:.]{{2,45}}\]):([1-9][0-9]{{0,3}}|[1-5][0-9]{{4}}|6[0-4][0-9]{{3}}|65[0-4][0-9]{{2}}|655[0-2][0-9]|6553[0-5])",
    "127.0.0.1:5432",
)
URL = Text(
    "an http or https URL such as https://login.example.com/",
    rf"https?://({_DNS}|\[[0-9A-Fa-f:.]{{2,45}}\])(:[0-9]{{1,5}})?(/[!-~]*)?",
    "https://login.example.com/",
    longest=1024,
)
ORIGIN = Text(
    'a web origin such as https://app.example.com (scheme, host, port; no path), or "*" for every one',
    rf"\*|[a-z][a-z0-9+.-]*://({_DNS}|\[[0-9A-Fa-f:.]{{2,45}}\])(:[0-9]{{1,5}})?",
    "https://app.example.com",
    longest=300,
)
WATCHED = Text(
    "a file, a folder or a pattern with *, relative to this file, such as jede or jede/*.py",
    r"[^/\x00-\x1f][^\x00-\x1f]*",
    "jede",
    longest=512,
)
FILE = Text("a file's path", r"[^\x00-\x1f]+", "gateway.pem", longest=4096)
IMAGE = Text(
    "an image (name:tag or name@sha256:...) or the folder with its Dockerfile",
    r"[A-Za-z0-9./][A-Za-z0-9._/:@+-]*",
    "standins/python",
    longest=512,
)
AUDIENCE = Text("an audience as the issuer puts it into tokens", r"[!-~]+", "junzi", longest=512)
CONTEXT = Text("a context of the kubeconfig", r"[!-~]([ -~]*[!-~])?", "staging", longest=256)
NAMESPACE = Text(
    "a Kubernetes namespace (lower-case letters, digits and '-')",
    r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?",
    "junzi",
)
STORAGE_CLASS = Text("a StorageClass of the cluster", _SUBDOMAIN, "standard", longest=253)
OBJECT = Text("the name of an object of the cluster", _SUBDOMAIN, "idi-seal", longest=253)
SECRET_KEY = Text("a key of a Secret", r"[-._a-zA-Z0-9]+", "seal.key", longest=253)

RESOURCE = Text(
    "a resource that nodes have, such as nvidia.com/gpu",
    rf"{_SUBDOMAIN}/[A-Za-z0-9]([-A-Za-z0-9._]{{0,61}}[A-Za-z0-9])?",
    "nvidia.com/gpu",
    longest=317,
)

CIDR = Text(
    "a range of addresses such as 10.96.0.10/32",
    r"[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}",
    "10.96.0.10/32",
    longest=64,
)


def peer_variable(peer: str) -> str:
    """The variable that holds a peer's URL: `night-watch` is in NIGHT_WATCH_URL."""
    return peer.upper().replace("-", "_") + "_URL"
