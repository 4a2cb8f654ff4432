"""POP and MC1 by hand, against naive counting, and against published numbers on the real sets."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import dataset_of

from nextup.data.batches import batch_of_lists
from nextup.data.public import read_public
from nextup.data.sequences import Sequences
from nextup.errors import InputError
from nextup.evaluation.metrics import feasible, metrics
from nextup.evaluation.protocol import Protocol
from nextup.evaluation.ranks import rank_cases
from nextup.evaluation.retrieval import top_items
from nextup.models.base import Recommender
from nextup.models.registry import make_model
from nextup.models.store import load_model
from nextup.train.assess import evaluate
from nextup.train.fit import fit

histories = st.lists(st.lists(st.integers(1, 6), max_size=7), min_size=1, max_size=8).filter(
    lambda rows: any(rows)
)


def counted(name: str, rows: list[list[int]], n_items: int, **settings: object) -> Recommender:
    model = make_model(name, n_items, dict(settings))
    model.count(Sequences.from_lists(rows))
    return model


def score(model: Recommender, history: list[int]) -> list[float]:
    return model.scores(batch_of_lists([history], model.max_length))[0].tolist()


@settings(max_examples=60, deadline=None)
@given(histories, st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_mc1_is_the_count_of_followers_and_a_breath_of_popularity(
    rows: list[list[int]], history: list[int]
) -> None:
    pairs = Counter(pair for row in rows for pair in pairwise(row))
    items = Counter(item for row in rows for item in row)
    found = score(counted("mc1", rows, 6), history)
    expected = [pairs[history[-1], j] + 1e-7 * items[j] for j in range(7)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(histories)
def test_pop_is_the_count_of_items_whatever_the_history(rows: list[list[int]]) -> None:
    items = Counter(item for row in rows for item in row)
    model = counted("pop", rows, 6)
    for history in ([1], [5, 2]):
        assert score(model, history) == [items[j] for j in range(7)]


def test_mc1_on_the_smallest_corpus() -> None:
    model = counted("mc1", [[1, 2, 3], [1, 2, 4], [4]], 4)
    after, _ = top_items(model, Sequences.from_lists([[1], [2], [3]]), 3)
    assert after[0, 0] == 2
    assert after[1].tolist() == [4, 3, 1], "both followed once; 4 is the more popular"
    assert after[2].tolist() == [1, 2, 4], "nothing follows 3: by popularity, then by number"


def test_mc1_never_counts_across_the_end_of_a_history() -> None:
    model = counted("mc1", [[1, 2], [], [3, 4], [5]], 5, backoff=0.0)
    assert score(model, [2]) == [0.0] * 6
    assert score(model, [4]) == [0.0] * 6
    assert score(model, [3])[4] == 1.0


def test_spans_that_leave_out_items_are_not_counted_through() -> None:
    whole = Sequences.from_lists([[1, 2, 3, 4], [2, 3, 1, 1]])
    model = make_model("mc1", 4)
    model.count(whole.without_last(2))
    assert [round(x) for x in score(model, [1])] == [0, 0, 1, 0, 0]
    assert [round(x) for x in score(model, [2])] == [0, 0, 0, 1, 0]
    assert [round(x) for x in score(model, [3])] == [0] * 5


def test_counting_again_forgets_what_was_counted_before() -> None:
    model = counted("mc1", [[1, 2, 3]], 3)
    model.count(Sequences.from_lists([[3, 1]]))
    assert [round(x) for x in score(model, [1])] == [0, 0, 0, 0]
    assert round(score(model, [3])[1]) == 1


@pytest.mark.parametrize("name", ["pop", "mc1"])
def test_what_may_be_learnt_from_is_what_was_asked_for(name: str, tmp_path: Path) -> None:
    rows = [[1, 2, 3, 4, 5], [2, 3, 4, 5, 6], [1, 2]]
    data = dataset_of(Sequences.from_lists(rows), 6)
    parts = {
        "train": [[1, 2, 3], [2, 3, 4], [1, 2]],
        "train+valid": [[1, 2, 3, 4], [2, 3, 4, 5], [1, 2]],
        "all": rows,
    }
    for part, learnt in parts.items():
        run = fit(
            data,
            name,
            run=tmp_path / part.replace("+", "-"),
            learn_from=part,  # type: ignore[arg-type]
            device="cpu",
            progress=False,
        )
        model, _, popularity, _ = load_model(run.recommender_folder)
        expected = counted(name, learnt, 6)
        for history in ([1], [3], [5]):
            assert score(model, history) == score(expected, history)
        assert popularity.tolist() == [sum(row.count(j) for row in learnt) for j in range(7)]
        assert ("valid" in run.metrics) == (part == "train")


METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10", "HR@20", "NDCG@20")
ANCHORS = {  # as given with the data sets: all items, none seen, the lower id first
    ("Sports", "train"): (0.0285, 0.0207, 0.0369, 0.0234, 0.0465, 0.0259),
    ("Toys", "train"): (0.0587, 0.0440, 0.0706, 0.0479, 0.0814, 0.0506),
    ("Yelp", "train"): (0.0136, 0.0090, 0.0203, 0.0111, 0.0283, 0.0131),
    ("Beauty", "train"): (0.0513, 0.0389, 0.0668, 0.0439, 0.0822, 0.0478),
    ("Sports", "train+valid"): (0.0309, 0.0227, 0.0410, 0.0259, 0.0525, 0.0288),
    ("Toys", "train+valid"): (0.0663, 0.0504, 0.0822, 0.0555, 0.0946, 0.0586),
    ("Yelp", "train+valid"): (0.0148, 0.0097, 0.0222, 0.0121, 0.0307, 0.0142),
    ("Beauty", "train+valid"): (0.0596, 0.0451, 0.0757, 0.0503, 0.0925, 0.0546),
}


@pytest.mark.data
@pytest.mark.parametrize("learn_from", ["train", "train+valid"])
@pytest.mark.parametrize("dataset", ["Sports", "Toys", "Yelp", "Beauty"])
def test_mc1_stands_where_it_was_calculated_to_stand(dataset: str, learn_from: str) -> None:
    expected = dict(zip(METRICS, ANCHORS[dataset, learn_from], strict=True))
    try:
        data = read_public(dataset.lower(), titles=False)
    except InputError as absent:
        pytest.skip(str(absent))
    assert feasible(expected, tolerance=1e-4) == []
    split = data.split("leave-one-out")
    model = make_model("mc1", data.n_items)
    model.count(split.train if learn_from == "train" else split.train_and_valid)
    found = metrics(rank_cases(model, split.test, Protocol(ties="low_id")))
    assert {name: round(found[name], 4) for name in expected} == expected


@pytest.mark.data
def test_fit_and_evaluate_give_the_anchor_too(tmp_path: Path) -> None:
    expected = dict(zip(METRICS, ANCHORS["Toys", "train+valid"], strict=True))
    try:
        data = read_public("toys", titles=False)
    except InputError as absent:
        pytest.skip(str(absent))
    run = fit(
        data,
        "mc1",
        run=tmp_path / "run",
        learn_from="train+valid",
        protocol=Protocol(ties="low_id"),
        device="cpu",
        progress=False,
    )
    found = evaluate(run, data, device="cpu")
    assert {name: round(found[name], 4) for name in expected} == expected


def test_logits_make_the_shares_that_were_counted() -> None:
    batch = batch_of_lists([[1], [2, 3]], 9)
    found = torch.softmax(counted("pop", [[1, 1, 2], [1, 2]], 3).logits(batch), dim=1)
    torch.testing.assert_close(found, torch.tensor([[0, 0.6, 0.4, 0]] * 2, dtype=torch.float64))
    followed = counted("mc1", [[1, 1, 2], [1, 2]], 3, backoff=0.0).logits(batch)
    torch.testing.assert_close(torch.softmax(followed, dim=1)[0, 1:3].tolist(), [1 / 3, 2 / 3])


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_a_chain_is_loaded_where_it_is() -> None:
    found = counted("mc1", [[1, 2, 3]], 3).state_dict()
    model = make_model("mc1", 3).to("meta")
    model.load_state_dict(found)
    assert {each.device.type for each in model.buffers()} == {"meta"}
