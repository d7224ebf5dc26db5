"""`idi token`: a token for the gateway on stdout and nothing else, or a client's new secret."""

from __future__ import annotations

from idi.cli.commands import Command
from idi.cli.failure import DONE, usage
from idi.cli.invocation import Invocation
from idi.cli.parser import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.types import TokenRequest


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--client", metavar="C", help="for this declared client (default: the operator's own)"
    )
    parser.add_argument(
        "--new-secret", action="store_true", help="make a new secret for the client; shown once"
    )
    parser.add_argument(
        "--scope",
        action="append",
        default=[],
        metavar="S",
        help="only this scope; again, or with commas, for more",
    )
    parser.add_argument("--ttl", type=seconds, metavar="TIME", help="how long it is good, such as 5m")


def run(invocation: Invocation) -> int:
    options = invocation.options
    if options.new_secret and not options.client:
        raise usage("--new-secret needs --client: a secret belongs to a client.")
    scopes = [scope for given in options.scope for scope in given.replace(",", " ").split()]
    request: TokenRequest = {}
    if options.client:
        request["client"] = options.client
    if options.new_secret:
        request["new_secret"] = True
    if scopes:
        request["scopes"] = scopes
    if options.ttl is not None:
        request["ttl_s"] = options.ttl
    answer = invocation.client().token(request)
    screen = invocation.screen
    if invocation.json:
        screen.document(answer)
    elif options.new_secret:
        screen.out(answer["client_secret"])
        screen.err(
            f"The secret of {answer.get('client_id', options.client)}: shown once, kept only as a hash."
        )
    else:
        screen.out(answer["token"])
    return DONE


COMMANDS = {
    "token": Command(
        run,
        arguments,
        examples=(
            'curl -H "authorization: Bearer $(idi token)" http://127.0.0.1:8080/v1/jede/',
            "idi token --scope jede.read --ttl 5m",
            "idi token --client pilot --new-secret",
        ),
        about="A token for the gateway on stdout, nothing else: the operator's own with every scope of the\n"
        "environment, or one of a declared client. A client's secret is made here and shown once.",
    )
}
