"""Commands that ask control: what they ask, what they show, with and without --json."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from idi.api.place import place
from idi.control.change.wanted import Wanted
from idi.declaration.types import ModuleName
from idi.parts.store.interface import Actor
from idi.parts.store.sqlite.store import open_store
from idi.plan.types import Overlays
from tests.command.conftest import Run
from tests.command.fake_control import FakeControl, module, part, status, step


def problem(code: int, detail: str, **more: object) -> tuple[int, object]:
    return code, {"type": "about:blank", "title": "X", "status": code, "detail": detail, **more}


# --- status --------------------------------------------------------------------------------------------


def test_status_of_what_does_not_run_is_3_with_the_way_out(idi: Run) -> None:
    found = idi("status")
    assert (found.code, found.out) == (3, "")
    assert found.err == "platform.yaml (dev) is not running.\nidi up starts it.\n"


def test_the_way_out_names_the_same_platform(idi: Run, folder: Path) -> None:
    (folder / "other.yaml").touch()
    found = idi("status", "--file", "other.yaml", "--env", "staging")
    assert "idi up --file other.yaml --env staging starts it." in found.err


@pytest.mark.parametrize(
    "command", ["status", "status --watch", "logs", "token", "call jede /", "scale jede=1", "audit list"]
)
def test_where_there_is_no_declaration_that_is_said(idi: Run, folder: Path, command: str) -> None:
    (folder / "platform.yaml").unlink()
    found = idi(*command.split())
    assert (found.code, found.out) == (3, "")  # nothing runs: the same code as ever
    assert (
        found.err == f"There is no platform.yaml in {folder}.\nidi init writes one; --file names another.\n"
    )
    down = idi("down")
    assert (down.code, down.out) == (0, f"There is no platform.yaml in {folder}: nothing to stop.\n")


def test_status_with_json_of_what_does_not_run(idi: Run) -> None:
    found = idi("status", "--json")
    assert (found.code, found.out) == (3, "")
    assert json.loads(found.err)["exit"] == 3


def test_status_is_the_table_without_colour_in_a_pipe(idi: Run, control: FakeControl) -> None:
    found = idi("status")
    assert found.code == 0
    assert "MODULE  READY  STATE" in found.out
    assert "9 of 9 ready.   idi call pas /   idi logs   idi down" in found.out
    assert "\x1b" not in found.out + found.err


def test_status_with_json_is_the_document_itself(idi: Run, control: FakeControl) -> None:
    found = idi("status", "--json")
    assert found.document == control.status
    assert found.err == ""


def test_an_ill_module_is_named_in_the_last_line(idi: Run, control: FakeControl) -> None:
    control.status = status([module("jede"), module("cam", "failed", reason="exit status 1")])
    assert "1 of 2 ready.   idi call jede /   idi logs cam   idi down" in idi("status").out


def test_what_is_offered_to_call_has_a_route(idi: Run, control: FakeControl) -> None:
    control.status = status(
        [
            {**module("prices"), "routes": []},
            {**module("eat", "failed"), "routes": ["/v1/eat/"]},
            {**module("shop"), "routes": ["/shop/"]},
            {**module("cam"), "routes": ["/v1/cam/live/"]},
        ]
    )
    assert "ready.   idi call cam /live/   idi logs eat   idi down" in idi("status").out


def test_processes_without_control_are_named(idi: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".idi/dev/seats").mkdir(parents=True)
    (folder / ".idi/dev/seats/jede-1.json").write_text("{}")
    assert "is not running.\nidi up starts it" in idi("status").err  # a record alone is no process
    monkeypatch.setattr("idi.api.left_over.left_over", lambda *_: [("jede-1 (module)", 7)])
    found = idi("status")
    assert found.code == 3
    assert "what it started goes on" in found.err
    assert "idi up takes it over, idi down stops it." in found.err


def test_what_is_no_control_is_a_failure_with_words(idi: Run, control: FakeControl) -> None:
    control.answers["GET", "/v1/status"] = problem(500, "Its log says more.")
    found = idi("status")
    assert (found.code, found.err) == (1, "Its log says more.\n")


def test_control_that_hangs_is_not_reachable(
    idi: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idi.cli.invocation.ANSWER_S", 0.2)
    monkeypatch.setattr(control, "answer", lambda *_: time.sleep(1))
    found = idi("status")
    assert found.code == 3
    assert "did not answer within 0.2 s" in found.err


# --- validate, schema, init, plan -----------------------------------------------------------------------


def test_validate(idi: Run) -> None:
    found = idi("validate")
    assert found.code == 0
    assert found.out == "platform.yaml is valid: junzi, dev, 2 modules with 3 instances, 0 externals.\n"
    assert idi("validate", "--json").document == {
        "valid": True,
        "mistakes": [],
        "warnings": [],
        "refused": [],
    }


def test_an_environment_on_kubernetes_is_valid_and_refused(
    idi: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (folder / "platform.yaml").read_text().replace('run: "true"', 'run: "true"\n    image: x')
    (folder / "platform.yaml").write_text(text)
    said = "Environment 'production' does not say which images of IDI it is to run."
    assert said in idi("validate", "--env", "production").err
    assert idi("validate", "--env", "production").code == 0
    found = idi("up", "--env", "production")
    assert (found.code, found.err.splitlines()[0]) == (1, said)
    # What would change is asked of the cluster, and this machine knows none by that name.
    monkeypatch.setenv("KUBECONFIG", str(folder / "none"))
    found = idi("plan", "--env", "production")
    assert found.code == 3
    assert "no context production" in found.err


def test_validate_shows_every_mistake_with_its_place(idi: Run, folder: Path) -> None:
    text = (
        (folder / "platform.yaml")
        .read_text()
        .replace("[cam]", "[camm]")
        .replace("instances: 2", "instances: x")
    )
    (folder / "platform.yaml").write_text(text)
    found = idi("validate")
    assert (found.code, found.out) == (2, "")
    lines = found.err.splitlines()
    assert lines[0].startswith("platform.yaml:5:")
    assert lines[1].startswith("platform.yaml:6:")
    assert "cam" in lines[1]
    assert lines[-1] == "2 mistakes, nothing was changed."
    document = idi("validate", "--json")
    assert document.code == 2
    assert document.document["mistakes"] == lines[:2]
    assert document.err == ""


@pytest.mark.parametrize("name", ["validate", "plan", "up"])
def test_a_missing_file_is_wrong_usage(idi: Run, name: str) -> None:
    found = idi(name, "--file", "nowhere.yaml")
    assert found.code == 2
    assert "There is no nowhere.yaml in" in found.err
    assert "idi init" in found.err


def test_a_folder_is_no_file(idi: Run) -> None:
    assert "--file ./platform.yaml" in idi("validate", "--file", ".").err


def test_the_schema_is_one_and_goes_to_a_file(idi: Run, folder: Path) -> None:
    document = json.loads(idi("schema").out)
    assert document["$schema"]
    found = idi("schema", "--output", "s.json")
    assert "$schema=./s.json" in found.out
    assert json.loads((folder / "s.json").read_text()) == document
    assert idi("schema", "--output", "no/such/s.json").code == 2


def test_init_writes_what_is_valid_and_overwrites_nothing(idi: Run, folder: Path) -> None:
    found = idi("init", "new")
    assert found.code == 0
    assert "cd new && idi up" in found.out
    assert idi("validate", "--file", "new/platform.yaml").code == 0
    before = {path: path.read_bytes() for path in (folder / "new").iterdir()}
    again = idi("init", "new")
    assert again.code == 2
    assert "platform.yaml" in again.err
    assert {path: path.read_bytes() for path in (folder / "new").iterdir()} == before
    assert idi("init").code == 2  # one is here already
    assert "new2/platform.yaml" in idi("init", "new2", "--json").document["written"]


def test_init_leaves_nothing_half_written(idi: Run, folder: Path) -> None:
    (folder / "closed").write_text("a file, no folder")
    found = idi("init", "closed")
    assert found.code in (1, 2)
    assert "Traceback" not in found.err


def test_plan_where_nothing_runs_is_what_a_first_up_would_do(idi: Run, folder: Path) -> None:
    found = idi("plan")
    assert found.code == 0
    assert "+ jede     2 instances" in found.out
    assert "4 to start (nothing runs now)." in found.out
    assert "wait until" not in found.out  # nothing comes after it
    document = idi("plan", "--json").document
    assert {step["module"] for step in document["steps"]} == {"openbao", "gateway", "jede", "cam"}
    assert not (folder / ".idi").exists()
    assert "modules.jede.instances" in idi("plan", "--origins").out


def test_plan_where_nothing_runs_has_the_numbers_that_scale_recorded(idi: Run, folder: Path) -> None:
    _, _, state, _, keys = place("platform.yaml", "dev")
    overlays = Overlays({ModuleName("jede"): 4, ModuleName("gone"): 3})
    journal = Path(state) / "journal"

    async def write() -> None:
        async with open_store(journal, Path(keys), origin="idi/test", clock=time.time) as store:
            wanted = Wanted(up=False, text="x", file="platform.yaml", overlays=overlays)
            await store.begin(Actor("peer", "anna"), "down", {}, documents=wanted.documents())

    asyncio.run(write())
    found = idi("plan")
    assert "+ jede     4 instances" in found.out
    note = "jede has 4 instances by idi scale; platform.yaml:5:16 says 2. idi scale jede=2 goes back to that."
    assert found.err == f"{note}\n"
    assert "idi scale" in idi("plan", "--origins").out
    (journal / "journal.db").write_bytes(b"garbage")
    spoilt = idi("plan")
    assert spoilt.code == 0
    assert "+ jede     2 instances" in spoilt.out
    assert "What idi scale and idi config set recorded is not in this plan. The journal" in spoilt.err


def test_plan_without_control_does_not_say_that_nothing_runs_where_something_does(
    idi: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idi.cli.plan.left_over", lambda _: True)
    assert "4 to start (control does not run: what it left running is not counted)." in idi("plan").out


def test_plan_of_what_runs_comes_from_control(idi: Run, control: FakeControl, folder: Path) -> None:
    view = {
        "steps": [
            step("jede", "ensure", "+", "2 instances of revision b", "command 'a' -> 'b'"),
            step("jede", "await-ready", ".", "wait until 2 of revision b ready (at most 60 s)"),
            step("jede", "remove", "-", "remove revision a (2 instances)", "command 'a' -> 'b'"),
            step("cam", "remove", "-", "remove revision c (1 instance)", "no longer declared"),
        ],
        "origins": {},
        "warnings": [],
        "drift": [],
        "refused": [],
    }
    control.answers["POST", "/v1/plan"] = (200, view)
    found = idi("plan")
    assert found.out.count("because command 'a' -> 'b'") == 1
    assert "because no longer declared" in found.out
    assert "wait until 2 of revision b" in found.out  # before the old ones go
    assert "1 to change, 1 to stop." in found.out
    assert control.requests[-1][2]["text"] == (folder / "platform.yaml").read_text()
    assert idi("plan", "--json").document == view


NO_CHANGE: dict[str, object] = {"steps": [], "origins": {}, "warnings": [], "drift": [], "refused": []}


def test_plan_without_a_change(idi: Run, control: FakeControl) -> None:
    control.answers["POST", "/v1/plan"] = (200, NO_CHANGE)
    assert idi("plan").out == "No changes: what runs is what is declared.\n"


def test_what_the_cluster_would_refuse_is_said_and_is_1(idi: Run, control: FakeControl) -> None:
    objection = {
        "module": "jede",
        "object": "Pod of Deployment jede-stable",
        "reason": "exceeded quota: full",
        "way_out": "Raise the environment's quota, or scale something else down.",
    }
    steps = [step("jede", "ensure", "+", "2 instances of revision b", "")]
    control.answers["POST", "/v1/plan"] = (200, {**NO_CHANGE, "steps": steps, "refused": [objection]})
    found = idi("plan")
    assert found.code == 1
    assert "jede  Pod of Deployment jede-stable\n      exceeded quota: full\n      Raise the" in found.out
    assert "idi up does it" not in found.out
    assert found.err.startswith("The cluster would refuse this; nothing was changed.\n")
    found = idi("plan", "--json")
    assert found.code == 1
    assert found.document["refused"] == [objection]


def test_what_a_controller_counts_is_left_and_said(idi: Run, control: FakeControl) -> None:
    drift = {
        "module": "cam",
        "object": "Deployment cam-stable",
        "field": "spec.replicas",
        "declared": "2",
        "there": "4",
        "manager": "keda",
        "left": True,
    }
    control.answers["POST", "/v1/plan"] = (200, {**NO_CHANGE, "drift": [drift]})
    found = idi("plan")
    assert found.code == 0
    assert "Deployment cam-stable spec.replicas is 4, 2 is declared: left to keda" in found.out
    assert "No changes" in found.out


def test_plan_of_an_invalid_declaration_is_2(idi: Run, control: FakeControl) -> None:
    control.answers["POST", "/v1/plan"] = problem(422, "x", mistakes=["platform.yaml:1:1: wrong."])
    found = idi("plan")
    assert found.code == 2
    assert found.err == "platform.yaml:1:1: wrong.\n1 mistake, nothing was changed.\n"
    assert json.loads(idi("plan", "--json").err)["mistakes"] == ["platform.yaml:1:1: wrong."]


# --- token ----------------------------------------------------------------------------------------------


def test_a_token_is_alone_on_stdout(idi: Run, control: FakeControl) -> None:
    control.answers["POST", "/v1/tokens"] = (200, {"token": "ey.x.y", "expires_in": 300, "scope": "a b"})
    assert idi("token").out == "ey.x.y\n"
    assert control.requests[-1][2] == {}
    idi("token", "--client", "pilot", "--scope", "a,b", "--scope", "c", "--ttl", "5m")
    assert control.requests[-1][2] == {"client": "pilot", "scopes": ["a", "b", "c"], "ttl_s": 300.0}
    assert idi("token", "--json").document["expires_in"] == 300


def test_a_new_secret_is_alone_on_stdout(idi: Run, control: FakeControl) -> None:
    control.answers["POST", "/v1/tokens"] = (200, {"client_id": "pilot", "client_secret": "s3cret"})
    found = idi("token", "--client", "pilot", "--new-secret")
    assert found.out == "s3cret\n"
    assert "shown once" in found.err
    assert "s3cret" not in found.err


def test_a_refused_token_says_why(idi: Run, control: FakeControl) -> None:
    control.answers["POST", "/v1/tokens"] = problem(409, "No client is called 'x'.", way_out="Declare it.")
    found = idi("token", "--client", "x")
    assert (found.code, found.out, found.err) == (1, "", "No client is called 'x'.\nDeclare it.\n")


# --- scale, restart -------------------------------------------------------------------------------------


def done(module_name: str, kind: str, symbol: str, text: str) -> dict[str, object]:
    return {"type": "step", "state": "done", "step": step(module_name, kind, symbol, text), "seconds": 0.5}


def test_scale_asks_and_shows_its_steps(idi: Run, control: FakeControl) -> None:
    control.changes["scale"] = [done("jede", "ensure", "~", "1 instance -> 3 of revision a")]
    found = idi("scale", "jede=3", "cam=0")
    assert found.code == 0
    assert control.requests[-1][2] == {"action": "scale", "modules": {"jede": 3, "cam": 0}}
    assert "  ~ jede  1 instance -> 3 of revision a  0.5 s" in found.out
    assert found.out.splitlines()[-1].startswith("Done in ")


def test_restart_asks_once_for_each(idi: Run, control: FakeControl) -> None:
    assert idi("restart", "jede", "cam", "jede").code == 0
    assert control.requests[-1][2] == {"action": "restart", "modules": ["jede", "cam"]}


def test_progress_with_json_is_a_document_per_line(idi: Run, control: FakeControl) -> None:
    control.changes["restart"] = [done("jede", "ensure", "+", "x")]
    found = idi("restart", "jede", "--json")
    assert [item["type"] for item in found.documents] == ["started", "step", "done"]
    assert found.err == ""


def test_what_a_step_waits_for_is_said_while_it_waits(idi: Run, control: FakeControl) -> None:
    begun = {**done("jede", "await-ready", ".", "wait until 2 of revision b ready"), "state": "running"}
    waits = {**begun, "reason": "1 of 2 ready; jede-2: its image is \x1bpulled"}
    control.changes["scale"] = [begun, waits, {**begun, "state": "done"}]
    found = idi("scale", "jede=2")
    assert found.code == 0
    assert "  … jede  1 of 2 ready; jede-2: its image is pulled\n" in found.out
    assert found.out.index("its image") < found.out.index("✓ jede")


def test_a_change_that_fails_is_1_with_the_last_lines(idi: Run, control: FakeControl) -> None:
    failed = {
        **done("jede", "await-ready", ".", "wait"),
        "state": "failed",
        "reason": "jede-3 failed: exit status 3.",
        "lines": ["again", "again", "again", "KeyError: \x1b[2J'X'"],
        "way_out": "See idi logs jede.",
    }
    control.changes["scale"] = [failed, {"type": "done", "ok": False, "reason": "jede failed."}]
    found = idi("scale", "jede=3")
    assert found.code == 1
    assert "jede-3 failed: exit status 3." in found.out
    assert "  | again  (3 times)\n  | KeyError: 'X'\n" in found.out
    assert "\x1b" not in found.out
    assert "Scaling failed.\njede failed.\n" in found.err
    with_json = idi("scale", "jede=3", "--json")
    document = json.loads(with_json.err)
    assert document["lines"][-1] == "KeyError: \x1b[2J'X'"
    assert document["detail"] == "Scaling failed. jede failed. jede-3 failed: exit status 3."


@pytest.mark.parametrize("arguments", [["scale", "jedd=1"], ["restart", "jedd"], ["call", "jedd", "/"]])
def test_an_unknown_module_is_2_with_the_nearest(
    idi: Run, control: FakeControl, arguments: list[str]
) -> None:
    found = idi(*arguments)
    assert found.code == 2
    assert "No module is called 'jedd'. Did you mean 'jede'?" in found.err
    assert all(request[0] == "GET" for request in control.requests)


def test_parts_that_fail_say_why_in_the_table(idi: Run, control: FakeControl) -> None:
    control.status = status([module("jede")], parts=[part("openbao", "unready", reason="sealed")])
    assert "openbao: sealed" in idi("status").out
