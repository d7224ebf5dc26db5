"""Which role somebody acts in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from idi.api.asker import RIGHTS
from idi.api.cluster import Denied
from idi.api.roles import ROLES, highest

pytestmark = pytest.mark.requirement("S6")


@dataclass
class Granting:
    roles: Sequence[str]
    context: str = "here"
    namespace: str = "shop-staging"
    asked: list[Mapping[str, str]] = field(default_factory=list)

    def may(self, asked: Sequence[Mapping[str, str]]) -> list[bool]:
        self.asked += asked
        return [one["name"].removeprefix("role.") in self.roles for one in asked]

    def who(self) -> str:
        return "erin"


def test_every_role_is_asked_for_at_once_and_the_highest_is_taken() -> None:
    cluster = Granting(["viewer", "deployer", "auditor"])
    assert highest(cluster) == "deployer"  # type: ignore[arg-type]
    assert len(cluster.asked) == len(ROLES)
    assert all(one["subresource"] == "token" and one["verb"] == "create" for one in cluster.asked)
    assert highest(Granting(["auditor", "viewer"])) == "auditor"  # type: ignore[arg-type]


def test_who_has_none_is_told_whom_to_ask() -> None:
    with pytest.raises(Denied, match="no role in namespace shop-staging") as denied:
        highest(Granting([]))  # type: ignore[arg-type]
    assert "--role=role.viewer --user=erin" in denied.value.way_out


def test_the_roles_are_those_that_control_knows_from_the_most_to_the_least() -> None:
    assert set(ROLES) == set(RIGHTS)
    for at, role in enumerate(ROLES):
        assert not any(RIGHTS[role] < RIGHTS[lesser] for lesser in ROLES[at + 1 :])


def test_the_audit_log_is_for_auditors_and_operators() -> None:
    assert {role for role, rights in RIGHTS.items() if "GET /v1/audit" in rights} == {"auditor", "operator"}
