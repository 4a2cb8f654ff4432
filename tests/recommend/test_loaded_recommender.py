"""Answers: raw ids in, raw ids and titles out, and a word about everything unusual."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import N_ITEMS, catalog, fitted, histories, popularity, saved

from nextup.data.batches import batch_of_lists
from nextup.devices import device_here
from nextup.errors import ConfigError, InputError
from nextup.evaluation.retrieval import top_k, top_k_of_row, top_k_on_device
from nextup.models.registry import available_models
from nextup.recommend.recommender import LoadedRecommender


def raw(numbers: object) -> list[str]:
    return [f"item-{n}" for n in numbers]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.integers(1, 90), st.data(), st.integers(0, 2**32 - 1), st.booleans())
def test_top_k_equals_a_stable_sort(
    c: int, n: int, data: st.DataObject, seed: int, doubles: bool
) -> None:
    k = data.draw(st.integers(1, n))
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, data.draw(st.sampled_from([-2, 2, 1000])), (c, n)).astype(np.float64)
    scores[rng.random((c, n)) < data.draw(st.sampled_from([0.0, 0.3, 0.98]))] = -np.inf
    given_scores = torch.from_numpy(scores).to(torch.float64 if doubles else torch.float32)
    values, columns = top_k(given_scores, k)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, order, axis=1)
    assert (values.numpy() == best).all()
    assert (columns.numpy() == np.where(np.isfinite(best), order, -1)).all()
    on_device = top_k_on_device(given_scores, k)
    assert torch.equal(on_device[0], values) and torch.equal(on_device[1], columns)
    for row in range(c):
        alone = top_k_of_row(scores[row].astype(np.float64 if doubles else np.float32), k)
        assert alone.tolist() == order[row][np.isfinite(best[row])].tolist()


def test_top_k_of_a_large_row_in_single_precision() -> None:
    scores = torch.randn(64, 12_101, generator=torch.Generator().manual_seed(0)).round(decimals=2)
    _, columns = top_k(scores, 20)
    expected = scores.argsort(dim=1, descending=True, stable=True)[:, :20]
    assert torch.equal(columns, expected)


@pytest.mark.parametrize("name", available_models())
def test_lists_are_the_best_unseen_items(name: str, tmp_path: Path) -> None:
    recommender = saved(name, tmp_path)
    lists = [row.tolist() for row in histories(seed=4)]
    batch = batch_of_lists(lists, recommender.model.max_length)
    with torch.no_grad():
        scores = batch.in_source_order(recommender.model.scores(batch)).clone()
    scores[:, 0] = -torch.inf
    for row, items in zip(scores, lists, strict=True):
        row[items] = -torch.inf
    for k in (1, 10):
        expected = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        found = recommender.recommend([raw(items) for items in lists], k)
        for row, answer in enumerate(found):
            assert answer.note is None and answer.unknown == []
            reached = torch.sort(scores[row], descending=True).values[:k]
            np.testing.assert_allclose(answer.scores, reached, rtol=1e-4, atol=1e-6)
            if name in ("pop", "mc1"):
                assert answer.items == raw(expected[row].tolist())
            titles = [catalog().titles[int(i.split("-")[1]) - 1] for i in answer.items]
            assert answer.titles == titles


@pytest.mark.parametrize("name", available_models())
def test_answering_changes_nothing_in_the_model(name: str, tmp_path: Path) -> None:
    recommender = saved(name, tmp_path)
    before = {k: v.clone() for k, v in recommender.model.state_dict().items()}
    first = recommender.recommend([raw([1, 2])], 5)
    assert recommender.recommend([raw([1, 2])], 5, exclude=raw([3])) is not None
    assert all(torch.equal(v, before[k]) for k, v in recommender.model.state_dict().items())
    assert recommender.recommend([raw([1, 2])], 5) == first


def test_one_history_and_many_agree(tmp_path: Path) -> None:
    recommender = saved("sasrec", tmp_path)
    asked = [raw(row) for row in histories(m=1200, seed=5)]
    together = recommender.recommend(asked, 5)
    for row in range(0, 1200, 97):
        alone = recommender.recommend([asked[row]], 5)[0]
        np.testing.assert_allclose(alone.scores, together[row].scores, rtol=1e-5)
        assert alone.items == together[row].items


def test_unknown_items_are_skipped_and_reported(tmp_path: Path) -> None:
    recommender = saved("sasrec", tmp_path)
    plain, mixed = recommender.recommend([raw([4, 9]), ["new", "item-4", 17, "item-9", "new"]], 6)
    assert mixed.items == plain.items and mixed.note is None
    assert mixed.unknown == ["new", 17, "new"] and plain.unknown == []


def test_empty_histories_get_popular_items_and_say_so(tmp_path: Path) -> None:
    recommender = saved("gru4rec", tmp_path)
    empty, stranger, usual = recommender.recommend([[], ["new"], raw([1])], 4)
    best = np.argsort(-popularity()[1:], kind="stable")[:4] + 1
    assert empty.items == stranger.items == raw(best)
    assert empty.scores == popularity()[best].tolist()
    assert empty.note == "the history is empty: these are the most popular items"
    assert stranger.note == "no item of the history is known: these are the most popular items"
    assert usual.note is None
    without = recommender.recommend([[]], 2, exclude=raw(best[:1]))[0]
    assert without.items == raw(best[1:3])
    assert recommender.recommend([[]], 2, only=raw([50, 51]))[0].items[0] in raw([50, 51])
    assert recommender.recommend([], 4) == []


@pytest.mark.parametrize("name", ["pop", "mc1", "sasrec"])
def test_exclusions(name: str, tmp_path: Path) -> None:
    recommender = saved(name, tmp_path)
    history = [raw([1, 2, 3])]
    free = recommender.recommend(history, N_ITEMS, exclude_seen=False)[0]
    assert sorted(free.items) == sorted(raw(range(1, N_ITEMS + 1)))
    unseen = recommender.recommend(history, N_ITEMS)[0]
    assert set(free.items) - set(unseen.items) == set(raw([1, 2, 3]))
    assert unseen.note == f"only {N_ITEMS - 3} of {N_ITEMS} wanted: no other items are left"
    banned = recommender.recommend(history, 10, exclude=[*free.items[:5], "unheard of"])[0]
    assert not set(banned.items) & set(free.items[:5])
    few = recommender.recommend(history, 10, only=raw([2, 40, 7, 7, 30]))[0]
    assert few.items == [i for i in free.items if i in raw([40, 7, 30])]
    assert few.note == "only 3 of 10 wanted: no other items are left"
    none = recommender.recommend(history, 10, only=raw([1, 2]))[0]
    assert none.items == [] and none.note is not None


def test_a_history_longer_than_the_model_reads_is_excluded_whole(tmp_path: Path) -> None:
    recommender = saved("sasrec", tmp_path)
    answer = recommender.recommend([raw(range(1, 41))], 20)[0]
    assert sorted(answer.items) == sorted(raw(range(41, 61)))


def test_questions_that_make_no_sense(tmp_path: Path) -> None:
    recommender = saved("pop", tmp_path)
    for k in (0, -1, True, 2.5, "3"):
        with pytest.raises(ConfigError, match="at least 1"):
            recommender.recommend([["item-1"]], k)
    with pytest.raises(ConfigError, match="the catalogue holds 60 items"):
        recommender.recommend([["item-1"]], 61)
    for wrong in (["item-1", "item-2"], "item-1", [1, 2], [["item-1"], None], None, 7):
        with pytest.raises(InputError, match="list of lists"):
            recommender.recommend(wrong)
    with pytest.raises(InputError, match="neither text nor a whole number"):
        recommender.recommend([[["item-1"]]])
    with pytest.raises(InputError, match="none of the items in `only`"):
        recommender.recommend([["item-1"]], only=["new"])
    with pytest.raises(InputError, match="`exclude` is a list"):
        recommender.recommend([["item-1"]], exclude="item-1")


def test_similar_items(tmp_path: Path) -> None:
    recommender = saved("sasrec", tmp_path)
    vectors = recommender.model.item_vectors().detach()[1:]
    unit = torch.nn.functional.normalize(vectors, dim=1)
    likeness = unit @ unit[4]
    likeness[4] = -2
    answer = recommender.similar_items("item-5", 6)
    assert answer.items == raw((likeness.argsort(descending=True)[:6] + 1).tolist())
    assert max(answer.scores) <= 1 + 1e-5
    assert len(recommender.similar_items("item-5", N_ITEMS)) == N_ITEMS - 1
    with pytest.raises(InputError, match="no item 'new'"):
        recommender.similar_items("new")
    with pytest.raises(ConfigError, match="model pop has no item vectors"):
        saved("pop", tmp_path / "other").similar_items("item-1")


def test_integer_ids_and_no_titles() -> None:
    from nextup.data.catalog import Catalog
    from nextup.data.rawids import RawIds

    ids = Catalog(RawIds.of([10 * n for n in range(1, N_ITEMS + 1)]))
    recommender = LoadedRecommender(fitted("pop"), ids, popularity())
    answer = recommender.recommend([[10, "20"]], 3)[0]
    assert all(isinstance(item, int) for item in answer.items)
    assert answer.titles == [None] * 3 and answer.unknown == []
    assert "pop, 60 items" in repr(recommender)


def test_a_device_is_here_or_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_here("auto") == device_here("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="`gpu` is not one of auto, cpu, cuda"):
        device_here("gpu")
    with pytest.raises(ConfigError, match="finds no device cuda here; use --device cpu"):
        device_here("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_here("cuda") == torch.device("cuda")
    with pytest.raises(ConfigError, match="finds no device cuda:1 here"):
        device_here("cuda:1")


def test_histories_may_come_one_by_one_or_under_other_labels(tmp_path: Path) -> None:
    recommender = saved("mc1", tmp_path)
    rows = [["item-1", "new"], [], ["item-2"]]
    expected = recommender.recommend(rows, k=3)
    assert recommender.recommend((row for row in rows), k=3) == expected  # type: ignore[arg-type]

    class Labelled:
        """As a column of lists of pandas: it goes through its values, and is asked by label."""

        def __iter__(self) -> Iterator[list[str]]:
            return iter(rows)

        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, label: int) -> list[str]:
            return rows[{7: 0, 0: 2, 1: 1}[label]]

    assert recommender.recommend(Labelled(), k=3) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "bpr", "mc1"])
def test_several_threads_get_the_answers_that_one_gets(name: str, tmp_path: Path) -> None:
    recommender = saved(name, tmp_path)
    asked = [[f"item-{1 + (at + step) % N_ITEMS}" for step in range(at % 7)] for at in range(120)]
    expected = [recommender.recommend([history], k=5)[0] for history in asked]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda history: recommender.recommend([history], k=5)[0], asked * 3))
    assert found == expected * 3
