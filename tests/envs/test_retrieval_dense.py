"""Dense retrieval with a BERT of two layers made on the spot."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from paw.envs.retrieval import build_index, index_facts, open_index
from paw.envs.retrieval.dense import Encoder
from paw.envs.search_qa import SearchQA, evaluate
from paw.errors import UserError

ANIMALS = "ant bear cat dog eel fox goat hen ibis jay kite lion mole newt owl pig"
WORDS = [*ANIMALS.split(), "query", "passage"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", '"']


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-e5"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(SPECIAL + WORDS))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(SPECIAL + WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [(a, b) for a in WORDS[:16] for b in WORDS[:16]]
    rows = [
        {"id": str(len(names) - i), "title": a, "text": " ".join([b] * (1 + i % 40))}
        for i, (a, b) in enumerate(names)
    ]
    rows.append(rows[0] | {"id": "1000"})  # the same text: a tie
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def index(model: Path, corpus: Path) -> Path:
    output = corpus.parent / "index"
    build_index(corpus, output, progress=False, encoder=model, max_tokens=32, batch_size=7)
    return output


def test_mean_pooling_ignores_padding(model: Path) -> None:
    encoder = Encoder(model, max_tokens=32, device=torch.device("cpu"))
    texts = ["ant bear cat dog", "owl", "fox " * 100]
    together = encoder.encode(texts)
    assert together.shape == (3, 16) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-5)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    # by hand: the mean of the last layer over [CLS] owl [SEP]
    network = BertModel.from_pretrained(model).eval()
    ids = torch.tensor([[2, len(SPECIAL) + WORDS.index("owl"), 3]])
    with torch.no_grad():
        hidden = network(ids).last_hidden_state[0]
    for pooling, row in (("mean", hidden.mean(0)), ("cls", hidden[0])):
        expected = (row / row.norm()).numpy()
        found = Encoder(model, pooling, 32, torch.device("cpu")).encode(["owl"])[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_search_is_the_exact_inner_product(model: Path, corpus: Path, index: Path) -> None:
    facts = index_facts(index)
    assert (facts["kind"], facts["num_passages"], facts["dimensions"]) == ("dense", 257, 16)
    assert facts["prefixes"] == ["query: ", "passage: "]  # "e5" in the directory's name
    encoder = Encoder(model, max_tokens=32, device=torch.device("cpu"))
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    rows.sort(key=lambda row: int(row["id"]))
    texts = [f'passage: "{row["title"]}"\n{row["text"]}' for row in rows]
    vectors = encoder.encode(texts).astype(np.float16).astype(np.float32)
    retriever = open_index(index)
    for query in ["fox", "ant bear owl", "unknownword"]:
        scores = vectors @ encoder.encode([f"query: {query}"])[0]
        found = retriever.search([query], 10)[0]
        assert [p.score for p in found] == pytest.approx(
            sorted(scores, reverse=True)[:10], abs=1e-5
        )
        assert [scores[int(p.id) - 1 if p.id != "1000" else -1] for p in found] == pytest.approx(
            [p.score for p in found], abs=1e-5
        )


def test_equal_scores_go_by_id(index: Path) -> None:
    found = open_index(index).search(["ant"], 257)[0]
    assert len(found) == 257
    places = [passage.id for passage in found]
    assert found[places.index("256")].score == pytest.approx(found[places.index("1000")].score)
    if found[places.index("256")].score == found[places.index("1000")].score:
        assert places.index("1000") == places.index("256") + 1


def test_empty_queries_and_copies(index: Path) -> None:
    retriever = open_index(index)
    found = retriever.search(["", "owl", " \n"], 2)
    assert [len(passages) for passages in found] == [0, 2, 0]
    assert retriever.search([""], 2) == [[]] and retriever.search([], 2) == []
    assert len(retriever.search(["\ud800 \x00"], 1000)[0]) == 257
    copy = pickle.loads(pickle.dumps(retriever))
    assert copy.search(["owl"], 2)[0] == found[1]
    passage = copy.passage("1000")
    assert passage is not None and passage.title == "ant" and copy.passage("0") is None


def test_the_environment_over_a_dense_index(index: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    row = {"id": "0", "question": "owl", "golden_answers": ["pig"], "supporting_ids": ["1"]}
    questions.write_text(json.dumps(row))
    source = SearchQA(questions=questions, retriever=index)
    env = source.open(source[0])
    env.reset()
    assert env.step("<search>owl</search>").observation.text.count("Doc ") == 3
    assert evaluate(index, questions, top_k=257)["recall"] == 1.0


def test_models_that_cannot_be_had(corpus: Path, tmp_path: Path, model: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        build_index(corpus, tmp_path / "index", progress=False, encoder=tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"encoder .*empty: "):
        build_index(corpus, tmp_path / "index", progress=False, encoder=empty)
    with pytest.raises(UserError, match="mean or cls"):
        build_index(corpus, tmp_path / "index", progress=False, encoder=model, pooling="max")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("name", ["index.json", "vectors.npy", "spans.npy", "passages.bin"])
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "directory"])
def test_damaged_files_are_one_line(index: Path, tmp_path: Path, name: str, how: str) -> None:
    copy = Path(shutil.copytree(index, tmp_path / "copy"))
    data = (copy / name).read_bytes()
    (copy / name).unlink()
    if how == "directory":
        (copy / name).mkdir()
    elif how != "missing":
        (copy / name).write_bytes(data[: len(data) // 2] if how == "cut" else b"")
    with pytest.raises(UserError, match="build") as caught:
        open_index(copy)
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fact", ["encoder", "dimensions", "prefixes", "pooling", "max_tokens"])
def test_facts_that_are_missing(index: Path, tmp_path: Path, fact: str) -> None:
    copy = Path(shutil.copytree(index, tmp_path / "copy"))
    facts = index_facts(copy)
    del facts[fact]
    (copy / "index.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=f"index.json has no {fact}.*; .* build the index again"):
        open_index(copy)


def test_an_encoder_that_was_moved_is_missed_at_once(index: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(index, tmp_path / "copy"))
    facts = index_facts(copy) | {"encoder": str(tmp_path / "gone")}
    (copy / "index.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"encoder .*gone is not there"):
        open_index(copy)
