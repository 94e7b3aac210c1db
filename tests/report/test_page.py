"""The page as a file: what is in it, and that nothing of the data can leave its place."""

import base64
import hashlib
import json
import re
import zlib
from importlib.resources import files

from paw.report.data import Chunk
from paw.report.page import SCRIPTS, render_live
from report import pages


def element(text: str, name: str) -> str:
    found = re.search(rf'<script[^>]* id="{name}">(.*?)</script>', text, re.S)
    assert found
    return found[1]


def test_data_and_chunks_are_read_back() -> None:
    page, chunks = pages.usual()
    text = pages.html(page, chunks)
    assert json.loads(element(text, "page"))["runs"][0]["episodes"]["return"][3] == 7.5
    packed = base64.b64decode(element(text, "chunk-1"))
    chunk = json.loads(zlib.decompress(packed, wbits=-15))
    assert chunk["episodes"][0]["turns"][0]["command"] == "sing a zither song"


def test_no_text_of_the_data_leaves_its_element() -> None:
    bad = "</script><script>x()</script><!-- {{script}} {{chunks}} &lt;\u2028\u2029 \\1 \\g<0>"
    text = pages.html(pages.page(pages.run(name=bad), title=bad), [])
    assert json.loads(element(text, "page"))["runs"][0]["name"] == bad
    assert not set("<>&\u2028\u2029") & set(element(text, "page"))
    assert text.count("<script") == text.count("</script>") == 2
    assert "<title>&lt;/script&gt;" in text


def test_half_a_surrogate_pair_is_kept() -> None:
    turn = pages.turn(then="odd \ud83d end")
    chunk = Chunk(run=0, episodes=(pages.episode(0, turn),))
    text = pages.html(pages.page(pages.run(name="\udfff")), [chunk])
    assert json.loads(element(text, "page"))["runs"][0]["name"] == "\udfff"
    inside = json.loads(zlib.decompress(base64.b64decode(element(text, "chunk-0")), wbits=-15))
    assert inside["episodes"][0]["turns"][0]["next_observation"] == "odd \ud83d end"


def test_the_policy_names_the_script_and_the_style_alone() -> None:
    page, chunks = pages.usual()
    for text, connect in ((pages.html(page, chunks), "'none'"), (render_live(page), "'self'")):
        found = re.search(r'Content-Security-Policy" content="(.*?)"', text)
        assert found
        policy = dict(part.split(" ", 1) for part in found[1].split("; "))
        script = re.search(r"<script>(.*?)</script>", text, re.S)
        style = re.search(r"<style>(.*?)</style>", text, re.S)
        assert script and style
        for name, body in (("script-src", script[1]), ("style-src", style[1])):
            digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
            assert policy[name] == f"'sha256-{digest}'"
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["connect-src"] == connect
        assert "https:" not in policy["img-src"]
    assert "\r" not in text  # a browser would hash it as \n


def test_scripts_set_no_html() -> None:
    root = files("paw.report")
    for name in SCRIPTS[1:]:
        body = root.joinpath(name).read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write"):
            assert word not in body, name
