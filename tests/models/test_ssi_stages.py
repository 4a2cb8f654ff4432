"""SSI trained: teachers that are what they would be alone, and a student that is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from small_models import N_ITEMS, dataset_of, part, shop
from small_parts import SHORT, STUDENT, TEACHERS

from nextup.data.sequences import Sequences
from nextup.errors import RunError
from nextup.models.gru4rec_official import GRU4RecOfficial
from nextup.models.registry import make_model
from nextup.models.ssi import SSI
from nextup.models.store import load_model
from nextup.train.assess import evaluate
from nextup.train.fit import fit


def answers(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "recommender")[0].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("student", [STUDENT, part("hgn", window_targets=0, targets="prefix")])
def test_nobody_heeded_is_the_student_alone_bit_for_bit(
    student: dict[str, Any], tmp_path: Path
) -> None:
    data = dataset_of(shop())
    how: dict[str, Any] = {"seed": 3, "progress": False}
    alone = {**student["settings"], **SHORT}
    fit(data, student["model"], run=tmp_path / "alone", settings=alone, **how)
    settings = {"student": student, "teachers": TEACHERS, "teacher_weight": 0.0, **SHORT}
    fit(data, "ssi", run=tmp_path / "ssi", settings=settings, **how)
    assert same(answers(tmp_path / "alone"), answers(tmp_path / "ssi"))
    heeded = {**settings, "teacher_weight": 0.5}
    fit(data, "ssi", run=tmp_path / "heeded", settings=heeded, **how)
    assert not same(answers(tmp_path / "alone"), answers(tmp_path / "heeded"))


def test_teachers_are_what_they_would_be_alone_and_are_trained_once(tmp_path: Path) -> None:
    data, kept = dataset_of(shop()), tmp_path / "kept"
    settings: dict[str, Any] = {
        "student": STUDENT,
        "teachers": [{**each, "training": {**SHORT, "epochs": 3}} for each in TEACHERS],
        **SHORT,
    }
    run = fit(data, "ssi", run=tmp_path / "ssi", settings=settings, kept=kept, progress=False)
    stages = [line["stage"] for line in run.log()]
    assert stages == ["teacher sasrec"] * 3 + ["teacher bert4rec"] * 3 + ["student gru4rec"] * 2
    assert {"weight.sasrec", "weight.bert4rec", "divergence", "item_distance"} <= set(run.log()[-1])
    # Another student of the same teachers, and a teacher by itself, find them there.
    again = fit(
        data, "ssi", run=tmp_path / "b", settings={**settings, "student": part("hgn")},
        kept=kept, progress=False,
    )  # fmt: skip
    assert [line.get("reused", False) for line in again.log()] == [True, True, False, False]
    # What they learnt last is said again where they are found.
    assert [line["loss"] for line in again.log()[:2]] == [run.log()[at]["loss"] for at in (2, 5)]
    assert again.log()[1]["cloze"] == run.log()[5]["cloze"]
    alone = {**TEACHERS[0]["settings"], **SHORT, "epochs": 3}
    found = fit(
        data,
        "sasrec",
        run=tmp_path / "c",
        recipe="paper",
        settings=alone,
        kept=kept,
        progress=False,
    )
    assert [line.get("reused") for line in found.log()] == [True]
    fit(data, "sasrec", run=tmp_path / "d", recipe="paper", settings=alone, progress=False)
    assert same(answers(tmp_path / "c"), answers(tmp_path / "d"))
    other = fit(
        data,
        "sasrec",
        run=tmp_path / "e",
        recipe="paper",
        settings=alone,
        kept=kept,
        seed=1,
        progress=False,
    )
    assert not any(line.get("reused") for line in other.log())


def test_what_another_run_kept_is_found_by_its_name_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nextup.train import kept

    settings: dict[str, Any] = {"student": STUDENT, "teachers": TEACHERS[:1], **SHORT}
    data = dataset_of(shop())
    one = fit(data, "ssi", run=tmp_path / "one", settings=settings, progress=False)

    def reused(name: str, where: Path) -> bool:
        run = fit(data, "ssi", run=tmp_path / name, settings=settings, kept=where, progress=False)
        return bool(run.log()[0].get("reused", False))

    assert reused("two", one.path) and reused("three", one.path / "stages")
    monkeypatch.setattr(kept, "code_mark", lambda: "another")
    assert not reused("four", one.path)
    with pytest.raises(RunError, match="cannot be kept there"):
        reused("five", one.path / "config.json")
    assert not (tmp_path / "five").exists() or not (tmp_path / "five" / "log.jsonl").exists()


def test_a_teacher_may_be_taught_itself_and_its_own_teachers_are_kept(tmp_path: Path) -> None:
    data, kept = dataset_of(shop()), tmp_path / "kept"
    inner = {"student": part("hgn"), "teachers": TEACHERS[:1]}
    settings: dict[str, Any] = {
        "student": STUDENT,
        "teachers": [{"model": "ssi", "settings": inner, "training": SHORT}],
        **SHORT,
    }
    fit(data, "ssi", run=tmp_path / "ssi", settings=settings, kept=kept, progress=False)
    alone = {**TEACHERS[0]["settings"], **SHORT}
    found = fit(data, "sasrec", run=tmp_path / "a", settings=alone, kept=kept, progress=False)
    assert [line.get("reused") for line in found.log()] == [True]


def test_a_stage_draws_what_it_would_alone_however_deep_it_is_nested() -> None:
    inner = {"student": part("hgn"), "teachers": [TEACHERS[0], {**TEACHERS[1], "start": 2}]}
    teachers = [{"model": "ssi", "settings": inner}]
    whole = make_model("ssi", N_ITEMS, {"student": STUDENT, "teachers": teachers})
    assert [stage.number for stage in whole.stages()] == [0, 2000, 0, 0]


def test_a_student_with_stages_imitates_in_the_last(tmp_path: Path) -> None:
    student = part("s3rec", pretrain_epochs=1)
    settings = {"student": student, "teachers": ["pop"], **SHORT}
    run = fit(dataset_of(shop()), "ssi", run=tmp_path / "s3", settings=settings, progress=False)
    assert ["divergence" in line for line in run.log()] == [False, True, True]
    nested = {"model": "ssi", "settings": {"student": part("hgn"), "teachers": TEACHERS[:1]}}
    settings = {"student": nested, "teachers": ["pop"], **SHORT}
    run = fit(dataset_of(shop()), "ssi", run=tmp_path / "n", settings=settings, progress=False)
    imitates = ["weight.pop" in line for line in run.log()]
    assert imitates == [False, False, True, True]
    assert load_model(run.recommender_folder)[0].name == "hgn"


def test_what_stays_is_the_student(tmp_path: Path) -> None:
    settings = {"student": STUDENT, "teachers": TEACHERS, **SHORT}
    data = dataset_of(shop())
    run = fit(data, "ssi", run=tmp_path / "ssi", settings=settings, progress=False)
    assert load_model(run.recommender_folder)[0].name == "gru4rec"
    assert (run.path / "stages").is_dir()
    assert 0 <= evaluate(run, data)["HR@10"] <= 1


LANES = {**part("gru4rec_official", negatives=5), "training": SHORT}


def test_a_student_s_tables_are_as_sparse_as_they_are_alone_and_learn_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, sparse, found = GRU4RecOfficial.loss, [], []

    def watched(self: GRU4RecOfficial, batch: Any) -> Any:
        sparse.append(self.sparse_gradients)
        return loss(self, batch)

    monkeypatch.setattr(GRU4RecOfficial, "loss", watched)
    student = {"model": LANES["model"], "settings": LANES["settings"]}
    settings: dict[str, Any] = {"student": student, "teachers": ["pop"], **SHORT}
    settings |= {"optimizer": "adagrad", "learning_rate": 0.05}
    for name in ("sparse", "dense"):
        if name == "dense":
            monkeypatch.setattr("nextup.train.loop.takes_sparse", lambda *_: False)
        fit(dataset_of(shop()), "ssi", run=tmp_path / name, settings=settings, progress=False)
        found.append(answers(tmp_path / name))
    assert sparse == [True] * (len(sparse) // 2) + [False] * (len(sparse) // 2)
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("after", "teachers"),
    [
        ("teacher sasrec", TEACHERS),
        ("teacher bert4rec", TEACHERS),
        ("student gru4rec", TEACHERS),
        ("student gru4rec", [LANES]),
    ],
    ids=["first", "second", "student", "student of one with lanes"],
)
def test_a_run_killed_in_any_stage_goes_on_to_the_same_student(
    tmp_path: Path, after: str, teachers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nextup.train import loop

    settings = {"student": STUDENT, "teachers": teachers, **SHORT, "checkpoint_seconds": 0.0}
    data = dataset_of(shop())
    whole = fit(data, "ssi", run=tmp_path / "whole", settings=settings, progress=False)
    step = loop.Loop._step

    def killed(self: Any, order: Any, epoch: int, number: int) -> Any:
        if self.stages[self.progress.stage].name == after and (epoch, number) == (1, 2):
            raise KeyboardInterrupt
        return step(self, order, epoch, number)

    monkeypatch.setattr(loop.Loop, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(data, "ssi", run=tmp_path / "cut", settings=settings, progress=False)
    monkeypatch.setattr(loop.Loop, "_step", step)
    fit(data, "ssi", run=tmp_path / "cut", settings=settings, resume=True, progress=False)
    assert same(answers(whole.path), answers(tmp_path / "cut"))


def test_a_second_teacher_of_one_kind_starts_elsewhere(tmp_path: Path) -> None:
    two = [TEACHERS[0], {**TEACHERS[0], "start": 1}]
    torch.manual_seed(0)
    settings = {"student": STUDENT, "teachers": two}
    fresh = cast("SSI", make_model("ssi", N_ITEMS, settings))
    one, other = (part.item_vectors() for part in fresh.parts[:2])
    assert not torch.equal(one, other)
    run = fit(
        dataset_of(shop()), "ssi", run=tmp_path / "a", settings={**settings, **SHORT},
        progress=False,
    )  # fmt: skip
    first, second = (
        [e["loss"] for e in run.log() if e["stage"] == name]
        for name in ("teacher sasrec", "teacher sasrec 2")
    )
    assert first != second and len(list((run.path / "stages").iterdir())) == 2


def test_what_is_held_out_reaches_neither_teachers_nor_student(tmp_path: Path) -> None:
    """Another test item: nothing differs. Another validation item: no loss does."""

    def with_other(last: int) -> Sequences:
        whole = shop()
        items = whole.items.copy()
        for end, length in zip(whole.ends, whole.lengths, strict=True):
            if length > 3:
                items[end - last : end] = items[end - last : end] % N_ITEMS + 1
        return Sequences(items, whole.starts, whole.ends)

    def losses_of(train: Sequences, name: str) -> tuple[list[float], dict[str, torch.Tensor]]:
        teachers = [
            {**part("consistency", task=task, layers=1), "training": SHORT}
            for task in ("temporal", "persona", "global")
        ]
        settings = {"student": part("hgn"), "teachers": teachers, **SHORT}
        run = fit(dataset_of(train), "ssi", run=tmp_path / name, settings=settings, progress=False)
        return [line["loss"] for line in run.log()], answers(tmp_path / name)

    losses, weights = losses_of(shop(), "as-is")
    assert len(losses) == 8
    again, same_weights = losses_of(with_other(1), "test")
    assert again == losses and same(weights, same_weights)
    assert losses_of(with_other(2), "both")[0] == losses
