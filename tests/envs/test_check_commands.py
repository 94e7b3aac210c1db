"""The commands with which the conformance check plays."""

from random import Random

from paw.envs.probe import bad_commands, fill_slots


def test_slots_are_filled_and_markup_is_not():
    assert fill_slots("search[<query>]", Random(0)) in {
        "search[red shoes]",
        "search[the capital of France]",
        "search[1]",
    }
    assert fill_slots("<search>query</search>", Random(0)) == "<search>query</search>"
    filled = fill_slots("<answer><text></answer>", Random(0))
    assert filled.startswith("<answer>") and filled.endswith("</answer>") and "<text>" not in filled
    assert fill_slots("go to desk 1", Random(0)) == "go to desk 1"


def test_bad_commands_include_what_the_contract_names():
    bad = bad_commands(("go to desk 1",))
    assert "" in bad and max(map(len, bad)) >= 2**20
    assert "go to desk 1\x00" in bad and "GO TO DESK 1" in bad and "<|im_end|>" in bad
    assert len(set(bad)) == len(bad)
