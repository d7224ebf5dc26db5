"""One proxy's dialogue with the xDS session, by hand and with no socket."""

from collections.abc import Mapping

from idi.parts.gateway.envoy.resources import Key, Kind, NodeResources, Resource, Store, version_of
from idi.parts.gateway.envoy.session import Request, Response, Session

C, E, S, L, R = Kind.CLUSTER, Kind.ASSIGNMENT, Kind.SECRET, Kind.LISTENER, Kind.ROUTES


def made(kind: Kind, name: str, content: str = "1", needs: tuple[Key, ...] = ()) -> Resource:
    return Resource(kind, name, version_of(f"{kind}{name}{content}".encode()), content.encode(), needs)


class Dialogue:
    """A proxy `n` that answers by hand."""

    def __init__(self, *resources: Resource) -> None:
        self.store = Store()
        self.seq = 1
        self.session = Session(self.store.view("n"))
        if resources:
            self.publish(*resources)

    def publish(self, *resources: Resource) -> None:
        """Exchange the whole view (secrets apart)."""
        own: dict[Kind, dict[str, Resource]] = {}
        for resource in resources:
            if resource.kind is S:
                self.store.put_secrets("n", [resource])
            else:
                own.setdefault(resource.kind, {})[resource.name] = resource
        self.store.replace({}, {"n": NodeResources(own=own)})
        self.seq += 1
        self.session.refresh(self.seq)

    def say(
        self,
        kind: Kind,
        *subscribe: str,
        drop: tuple[str, ...] = (),
        initial: Mapping[str, str] | None = None,
    ) -> None:
        self.session.receive(Request(kind, subscribe, drop, initial or {}))

    def sent(self) -> Response:
        """The one response that goes out now."""
        (response,) = self.session.responses()
        return response

    def silent(self) -> bool:
        return self.session.responses() == []

    def ack(self, response: Response) -> None:
        self.session.receive(Request(response.kind, nonce=response.nonce))

    def nack(self, response: Response, words: str = "no") -> None:
        self.session.receive(Request(response.kind, nonce=response.nonce, error=words))

    def settle(self) -> list[str]:
        """Acknowledge whatever comes until nothing does; what came, in order."""
        came = []
        while responses := self.session.responses():
            for response in responses:
                came += [f"+{response.kind.name} {resource.name}" for resource in response.resources]
                came += [f"-{response.kind.name} {name}" for name in response.removed]
                self.ack(response)
        return came


def names(response: Response) -> list[str]:
    return [resource.name for resource in response.resources]
