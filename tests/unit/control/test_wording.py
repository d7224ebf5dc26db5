"""Words that several refusals share."""

from idi.control.wording import what_failed


def test_what_failed_is_named_and_not_counted() -> None:
    assert what_failed(["jede: exit status 3.", "openbao: no port: taken."]) == "jede, openbao failed."
    refused = "gateway refuses route/edge: Proto constraint"
    assert what_failed(["jede: a", "jede: b", refused]) == "jede failed; gateway refuses route/edge."
    assert what_failed([refused]) == "gateway refuses route/edge."
