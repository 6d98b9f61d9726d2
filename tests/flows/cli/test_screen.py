"""Tables and lines at 80 columns: nothing that a person copies or compares is broken."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data_catalog.workspace import Workspace
from flows.ask.missing import outlook
from flows.cli.adapt import adapted_table
from flows.cli.care import doctor_table, status_table, verify_table
from flows.cli.models import models_table
from flows.cli.options import same_settings
from flows.cli.plan import accepted_lines, outlook_table, plan_table, why_table
from flows.cli.run import build_table, run_lines
from flows.cli.screen import fields, next_steps, plain_console, say, show_table
from flows.cli.students import show_export

DIGEST = "9f2c41d0" * 8
PATH = "/data/store/teach/bronze-statue/0003/9f2c41d0aa31bb52/a-shard-with-a-rather-long-name-00003.tar"
REASON = "upstream edit/bronze-statue/0000 and 3 more run"


def printed(render: Any, *given: Any) -> str:
    text = io.StringIO()
    render(*given, plain_console(file=text, width=80))
    return text.getvalue()


def test_a_table_at_80_columns_breaks_no_cell() -> None:
    heads = ["style", *(f"measure {number}" for number in range(12))]
    row = ["bronze-statue", *(f"{number}.12345" for number in range(12))]
    lines = printed(show_table, heads, [row]).splitlines()
    assert all(len(line) <= 80 for line in lines)
    words = " ".join(lines).split()
    assert set(row) <= set(words)
    assert words.count("bronze-statue") == 2  # each block names its rows


def test_words_of_a_last_column_wrap_between_words_and_a_path_stays_whole() -> None:
    text = printed(show_table, ["check", "found"], [["disk", f"one sentence about the place {PATH} and its state"]])
    lines = text.splitlines()
    assert PATH in text
    assert lines[2].index(PATH[:5]) == lines[0].index("found")
    assert "one sentence about the place" in text
    assert PATH in printed(say, f"a sentence with {PATH} in it, that goes on for more than a line of a terminal")


def test_heads_break_only_as_far_as_the_table_needs() -> None:
    heads = ["method", "ID", "CLIP", "3D", "LPIPS", "L1 of the edit", "vs no edit", "s / image"]
    row = ["editor+teacher", "0.583", "0.859", "0.881 ", "1.710", "0.0512", "75 %", "1.5583"]
    lines = printed(show_table, heads, [row, ["difference *", *["+0.027?"] * 7]]).splitlines()
    assert len(lines) == 4
    assert lines[0].split() == ["L1", "of", "vs", "no", "s", "/"]
    assert lines[2].index("0.881") + len("0.881") == lines[3].index("?", 40)  # the doubt stands beside the digits


def test_next_commands_stay_within_the_line() -> None:
    edit = 'stillroom edit docs/portrait.png --prompt "make him a clown"'
    lines = printed(
        lambda console: next_steps(console, {"stillroom evaluate": "measure it", edit: "use it"})
    ).splitlines()
    assert lines == ["", "next", "  stillroom evaluate" + " " * 42 + "   # measure it", f"  {edit}   # use it"]
    long = "measure it against its teachers"
    lines = printed(lambda console: next_steps(console, {"stillroom evaluate": long, edit: "use it"})).splitlines()
    assert lines[2] == f"  stillroom evaluate   # {long}"


def test_numbers_stand_to_the_right_and_words_to_the_left() -> None:
    lines = printed(
        show_table, ["style", "kept", "share"], [["zombie", "7", "(~100)"], ["neon", "112", "-"]]
    ).splitlines()
    assert lines == ["style   kept   share", "zombie     7  (~100)", "neon     112       -"]


def test_a_person_gets_four_digits_the_beginning_of_a_digest_and_no_json() -> None:
    document = {
        "student": DIGEST,
        "metrics": {"val_l1": 0.02027760149212554},
        "files": ["a.png", "b.png"],
        "none": None,
    }
    text = printed(fields, document | {"curve": [{"seconds": 1.23456789, "lpips": 0.5}]})
    assert "0.02028\n" in text
    assert "0.0202776" not in text
    assert f"{DIGEST[:16]}\n" in text
    assert not set('{}[]"') & set(text)
    assert "1.235" in text
    assert "None" not in text


def row_of(stage: str, **changed: Any) -> dict[str, Any]:
    price = {"partitions": 32, "samples": 896, "seconds": 24.0, "bytes": 10**6, "llm_tokens": 0}
    price |= {"unknown": [], "scaled": []}
    row = {"stage": stage, "partitions": 32, "cached": 0, "run": 32, "maybe": 0, "reasons": [REASON]}
    return row | {"price": price, "price_maybe": {**price, "partitions": 0}} | changed


def test_reasons_of_a_plan_stand_whole_below_its_table_and_a_shared_one_once() -> None:
    rows = [row_of("portraits", run=0, reasons=[]), row_of("score"), row_of("teach")]
    document = {"stages": rows, "estimate": rows[0]["price"], "at_most": rows[0]["price"], "summary": "to run"}
    text = printed(plan_table, document)
    table, _, reasons = text.partition("why\n")
    assert len(table.splitlines()) == 4
    assert all(len(line) <= 80 for line in text.splitlines())
    assert reasons.splitlines()[0] == f"  score, teach: {REASON}"


def test_the_forecast_of_the_paper_profile_lists_what_is_missing_in_whole_words() -> None:
    document = outlook("paper", [])
    assert document is not None
    text = printed(outlook_table, document)
    assert {line[-1] for line in text.splitlines() if line} - {"-"}
    words = text.split()
    for each in document["missing"]:
        assert set(each["get"].split()) <= set(words)
        assert f"where: {each['where']}\n" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_models_doctor_and_verify_keep_paths_and_commands_whole() -> None:
    model = {"model": "editor", "state": "ready", "bytes": 6974855, "digest": DIGEST, "source": PATH}
    lines = printed(models_table, {"models": [model]}).splitlines()
    assert lines[1].split() == ["editor", "ready", "7.0", DIGEST[:16], PATH]
    hint = "stillroom verify    (lets the locations follow the data root, and names what is lost)"
    check = {"check": "mlflow", "state": "warn", "found": f"artifacts are looked for below {PATH}", "hint": hint}
    text = printed(doctor_table, {"checks": [check]})
    assert PATH in text
    assert "hint: stillroom verify" in text
    damaged = {
        "partition": "teach/bronze-statue/0003",
        "problem": "size 3 instead of 4",
        "folder": PATH,
        "file": "x.tar",
    }
    text = printed(verify_table, {"checked": 1, "damaged": [damaged]})
    assert "teach/bronze-statue/0003: size 3 instead of 4\n" in text
    assert f"    {PATH}\n" in text


def test_accept_adapt_and_export_are_lines_for_a_person() -> None:
    change = "code models.three_d.live3d.(module), models.three_d.live3d.TriplaneRenderer.forward and 4 more: a1 -> b2"
    document: dict[str, Any] = {"stage": "teach", "accepted": 32, "already_valid": 0, "changed": [change]}
    text = printed(accepted_lines, document)
    assert text.startswith("teach: 32 partitions accepted, 0 were valid already\n")
    assert "stillroom plan" in text
    curve = [{"seconds": 0.0, "lpips": 2.123456789}, {"seconds": 61.23456, "lpips": 1.5}]
    document = {"style": "my-look", "base": DIGEST, "pairs": 10, "curve": curve, "lpips_to": "edited picture"}
    picture = f"{PATH}.png"
    document |= {"delta_bytes": 2_000_000, "seconds": 70.5, "files": [PATH, picture]}
    text = printed(adapted_table, document)
    assert "2.123 -> 1.500 after 61 s, to the edited picture" in text
    assert f"picture            {picture}\n" in text
    assert f"folder             {PATH.rpartition('/')[0]}\n" in text
    text = printed(show_export, {"folder": PATH, "student": DIGEST, "files": ["a.json"], "bytes": 9_123_456})
    assert f"{PATH}\n" in text
    assert "9.1 MB" in text


def test_the_next_commands_have_the_settings_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    chosen = same_settings("demo", ["edit.steps=3", "prompts.styles=[zombie, clown]"])
    assert chosen == " --set edit.steps=3 --set 'prompts.styles=[zombie, clown]'"
    assert (same_settings("demo", None), same_settings("paper", [])) == ("", " --profile paper")
    document = {"dataset": DIGEST, "samples": 7, "rejected": 1, "partitions_run": 8, "partitions_cached": 0}
    text = printed(partial(build_table, chosen=" --profile paper"), document)
    assert f"{tmp_path}/datasets/{DIGEST[:16]}/report.html\n" in text
    assert "  stillroom distill --profile paper   #" in text


def test_a_failed_deployment_says_its_error_once() -> None:
    document = {"flow": "adapt-style", "deployment": "adapt-style/demo", "flow_run_id": "1", "state": "FAILED"}
    document["page"] = "http://127.0.0.1/runs/1"
    text = printed(run_lines, document | {"message": "there is no student yet; hint stillroom distill"})
    assert text.endswith("/runs/1\nthere is no student yet; hint stillroom distill\n")
    assert "http://127.0.0.1/runs/1\n" in printed(run_lines, document | {"message": None})


def test_why_says_what_differs_and_each_value_once() -> None:
    inputs = [
        {"what": "setting guidance_scale", "then": "1.1", "now": "3.0", "same": False},
        {"what": "setting steps", "then": "5", "now": "5", "same": True},
    ]
    document = {"partition": "edit/zombie/0000", "state": "run", "changed": [inputs[0]], "note": "", "inputs": inputs}
    lines = printed(why_table, document | {"compared_with": None}).splitlines()
    assert lines[1] == "  setting guidance_scale: 1.1 -> 3.0"
    assert lines[-2:] == ["setting guidance_scale  1.1 -> 3.0", "setting steps           5"]


def test_status_of_an_empty_root_says_what_to_type(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.care.status import describe_status

    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    document = describe_status(Workspace.open())
    text = printed(status_table, json.loads(json.dumps(document)))
    assert "none of these settings yet: stillroom build" in text
    assert "none is up: make up" in text
    assert "None" not in text
    assert "{" not in text
