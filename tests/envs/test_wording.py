"""Classes of tokens and kinds of command that the benchmarks declare."""

import pytest
from webshop_small import shop

from paw import envs
from paw.envs.alfworld import Alfworld
from paw.envs.expert import play_expert
from paw.envs.webshop import WebShop
from paw.evals.answers import classes_of
from paw.style import LINKS, verb, words_of


def pieces(name, text, command="", instruction=""):
    """class -> texts of it, in order"""
    wording = envs.style(name).wording
    ranks = classes_of(text, command, instruction, wording)
    found = {kind: [] for kind in wording.classes}
    start = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or ranks[at] != ranks[start]:
            found[wording.classes[ranks[start]]].append(text[start:at])
            start = at
    return found


def test_words():
    assert verb("go to shelf 1") == "go" and verb("<search>who was it</search>") == "search"
    assert verb("") == verb("12") == ""
    assert words_of("Who wrote the Iliad in 1999?") == {"wrote", "iliad"}
    assert {word.lower() for word in LINKS} == LINKS


def test_a_page_of_search_results():
    text = (
        "Instruction: [SEP] find shoes under $30.00 [SEP] Back to Search [SEP] Page 1 (Total "
        "results: 50) [SEP] Next > [SEP] B09KRLGSC5 [SEP] HAUKLIE Mens Shirt XL ABCD12 [SEP] "
        "$9.99 to $1,011.99"
    )
    found = pieces("webshop", text, "search[shoes]", "find shoes under $30.00")
    assert found["product numbers"] == ["B09KRLGSC5"]
    assert found["prices"] == ["$30.00", "$9.99 to $1,011.99"]
    assert found["words in capitals"] == ["HAUKLIE", "ABCD12"]
    assert [b for b in found["buttons and marks"] if b != "[SEP]"] == ["Back to Search", "Next >"]
    assert found["the task"] == ["find shoes under "]
    assert " Mens Shirt XL " in found["other"]


def test_buttons_are_whole_pieces_of_a_page(shop_dir):
    """Of the real pages of a small shop, rich ones too; "Description" inside a title is none."""
    for observation in ("text", "text_rich"):
        source = shop(shop_dir, observation=observation)
        env = source.open(source[0])
        env.reset()
        env.step("search[red shoes]")
        text = env.step("click[b000000001]").observation.text
        buttons = pieces("webshop", text)["buttons and marks"]
        names = {b for b in buttons if "[" not in b}
        assert names == {
            "Back to Search", "< Prev", "Description", "Features", "Reviews", "Buy Now",
        }  # fmt: skip
    assert pieces("webshop", "a [SEP] Description of Features [SEP] b")["buttons and marks"] == [
        "[SEP]", "[SEP]",
    ]  # fmt: skip


def test_kinds_of_command():
    kind = envs.style("webshop").wording.kind
    assert kind("search[red shoes]") == "search"
    assert kind("click[b09krlgsc5]") == "click a product"
    assert kind("click[Buy Now]") == kind("click[buy now]") == "click buy now"
    assert kind("click[next >]") == "click next >"
    assert kind("click[x-large]") == "click an option"
    assert kind("") == ""
    assert envs.style("search_qa").wording.kind("<search>a</search>") == "search"
    assert envs.style("household").wording.kind("take mug 1 from shelf 1") == "take"


def test_search_results_of_questions():
    text = (
        '<information>Doc 1(Title: "The Iliad") The Iliad is a poem of 24 books.\n'
        "Doc 2: untitled</information>"
    )
    found = pieces("search_qa", text, "<search>who wrote the iliad</search>")
    assert found["frame"] == ['<information>Doc 1(Title: "', '")', "Doc 2:", "</information>"]
    assert found["words of the query"] == ["Iliad", "Iliad"]
    assert found["titles"] == ["The "]
    assert found["numbers"] == ["24"]


@pytest.mark.data
def test_the_thousand_products(shared_data):
    """Of every page that the expert sees in ten episodes, all product numbers are found, as the
    page's own commands name them."""
    source = WebShop("test", shared_data / "webshop")
    seen = 0
    for index in range(10):
        task = source[index]
        played = play_expert(source, task, 0, source.expert(task), 10)
        for observation in played.observations:
            named = pieces("webshop", observation.text)["product numbers"]
            shown = [c[6:-1].upper() for c in observation.commands]
            products = {name for name in shown if name in observation.text and name.isalnum()}
            products = {name for name in products if len(name) == 10 and name[0] == "B"}
            assert products <= set(named)
            seen += len(products)
    assert seen > 50


@pytest.mark.data
def test_real_games(alfworld_dir):
    """Every name with a number is one; what is left has neither."""
    source = Alfworld("valid_seen", alfworld_dir)
    for index in range(0, len(source), max(1, len(source) // 5)):
        task = source[index]
        played = play_expert(source, task, 0, source.expert(task), 30)
        for command, answer in zip(played.commands, played.observations[1:], strict=True):
            found = pieces("alfworld", answer.text, command)
            assert not any(c.isdigit() for rest in found["fixed words"] for c in rest)
            assert all(number.isdecimal() for number in found["numbers"])
            for name in found["names in the command"]:
                assert name in command
