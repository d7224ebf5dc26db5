"""What one call of the command was given, and the ways to the platform that it names."""

from __future__ import annotations

import os

from idi.api.client import Client
from idi.api.place import socket_path
from idi.cli.failure import USAGE, Failure, usage
from idi.cli.terminal.screen import Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from types import SimpleNamespace

MOST_FILE_BYTES = 1024 * 1024
ANSWER_S = 10.0


class Invocation:
    """`file` is as the user gave it: messages show it so."""

    def __init__(self, name: str, options: Namespace | SimpleNamespace) -> None:
        self.name = name
        self.options = options
        self.env: str = options.env
        self.file: str = options.file
        self.role: str = options.role
        self.json: bool = options.json
        self.debug: bool = options.debug
        self.screen = Screen(as_json=self.json)
        self.remote: bool | None = None
        """Whether it is on a cluster, once somebody has looked (remote.py)."""
        self._led = False

    @property
    def where(self) -> str:
        """The platform, for a message."""
        return f"{self.file} ({self.env})"

    def client(self, timeout: float = 0.0) -> Client:
        if self.role and not self._on_cluster():
            raise usage(
                "--role is for an environment on a cluster: on a laptop you are the user of this machine."
            )
        return Client(socket_path(self.file, self.env, self.role), timeout or ANSWER_S, self._way)

    def _on_cluster(self) -> bool:
        from idi.cli.remote import is_remote

        return is_remote(self)

    def _way(self) -> bool:
        """Nobody listens: an environment on a cluster is led to once more. Whether that makes sense."""
        from idi.cli.remote import lead_there

        if self._led or not self._on_cluster():
            return False
        self._led = True
        lead_there(self)
        return True

    def text(self) -> str:
        """The declaration's text; reading it is all that is done with it here."""
        return read_declaration(self.file)

    def command_line(self, rest: str) -> str:
        """`idi REST` with the options that name this same platform, to be copied by a person."""
        named = "" if self.file == "platform.yaml" else f" --file {self.file}"
        return f"idi {rest}{named}" + ("" if self.env == "dev" else f" --env {self.env}")


def no_declaration(file: str, code: int) -> Failure:
    here = "" if os.path.isabs(file) else f" in {os.getcwd()}"
    return Failure(
        f"There is no {file}{here}.", way_out="idi init writes one; --file names another.", code=code
    )


def read_declaration(file: str) -> str:
    try:
        with open(file, "rb") as opened:
            data = opened.read(MOST_FILE_BYTES + 1)
    except FileNotFoundError:
        raise no_declaration(file, USAGE) from None
    except IsADirectoryError:
        inside = os.path.join(file, "platform.yaml")
        raise usage(f"{file} is a folder.", f"Name the file: --file {inside}") from None
    except OSError as error:
        raise usage(f"{file} cannot be read: {error.strerror}.") from None
    if len(data) > MOST_FILE_BYTES:
        raise usage(f"{file} is larger than 1 MiB, which no declaration is.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise usage(
            f"{file}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; save it as UTF-8."
        ) from None
