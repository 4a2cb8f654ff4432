"""SSI: teachers that are what they would be alone, and a student that imitates them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from small_models import N_ITEMS, dataset_of, first_batch, part, shop
from torch.nn.functional import kl_div

from nextup.data.batches import batch_of_lists
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError, RunError
from nextup.models.registry import make_model
from nextup.models.ssi import SSI
from nextup.models.store import load_model
from nextup.train.assess import evaluate
from nextup.train.fit import fit
from nextup.train.recipe import resolve

CPU = torch.device("cpu")
SHORT = {"epochs": 2, "batch_size": 20, "patience": 0}
TEACHERS = [
    {**part("sasrec"), "training": SHORT},
    {**part("bert4rec", width=12), "training": SHORT},
]
STUDENT = part("gru4rec", layers=1, dropout=0.3)


def taught(student: dict[str, Any] = STUDENT, lively: bool = True, **settings: Any) -> SSI:
    """SSI in its last stage, every weight far from zero."""
    torch.manual_seed(0)
    model = make_model("ssi", N_ITEMS, {"student": student, "teachers": TEACHERS, **settings})
    model.prepare(shop(), CPU)
    if lively:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.3)
    model.begin_stage(model.stages()[-1].name, resumed=False)
    return cast("SSI", model)


def answers(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "recommender")[0].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    "student",
    [STUDENT, part("hgn", l2=0.0), part("gru4rec", targets="prefix", layers=1)],
    ids=["every", "windows", "prefix"],
)
def test_the_divergence_is_that_of_asking_each_teacher_after_the_same_history(
    student: dict[str, Any],
) -> None:
    model = taught(student, imitate_items=False, places=500).eval()
    batch = first_batch(model)
    found, each = model._predictions(batch, model.weights())
    train, expected = shop(), torch.zeros(2)
    histories = []
    assert batch.until is not None
    for row, (user, until) in enumerate(zip(batch.users.tolist(), batch.until, strict=True)):
        read = int(batch.lengths[row]) if model.last.targets == "every" else 1
        for back in range(read):
            if until - back > 0:
                histories.append((user, train[user][: until - back].tolist()))
    users = [user for user, _ in histories]
    rows = [history for _, history in histories]

    def log_shares(who: Any) -> torch.Tensor:
        asked = batch_of_lists(rows, who.max_length)
        asked = replace(asked, users=torch.tensor(users)[torch.from_numpy(asked.rows)])
        return asked.in_source_order(who.scores(asked))[:, 1:].log_softmax(dim=1)

    own = log_shares(model.last)
    for number, teacher in enumerate(model.parts[:-1]):
        said = log_shares(teacher)
        expected[number] = kl_div(own, said, log_target=True, reduction="sum") / len(rows)
    torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, (model.weights() * expected).sum(), rtol=1e-4, atol=1e-5)


def test_what_teachers_say_is_the_same_kept_or_asked_again() -> None:
    kept, asked = taught(keep_mb=100), taught(keep_mb=0)
    assert len(kept.classroom.kept) == 2 and not asked.classroom.kept
    users, until = np.array([3, 9, 3]), np.array([2, 1, 3])
    for one, other in zip(
        kept.classroom.say(users, until), asked.classroom.say(users, until), strict=True
    ):
        torch.testing.assert_close(one.logits(0, 3), other.logits(0, 3), rtol=1e-4, atol=1e-5)


def test_a_teacher_hears_nothing_of_what_comes_later() -> None:
    model = taught()
    rows = [row.tolist() for row in shop()]
    changed = Sequences.from_lists(
        [[*row[:3], *(1 + item % N_ITEMS for item in row[3:])] for row in rows]
    )
    before = model.classroom.say(np.array([4, 5]), np.array([3, 2]))
    model._histories, model._classroom = (changed, CPU), None
    after = model.classroom.say(np.array([4, 5]), np.array([3, 2]))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one.logits(0, 2), other.logits(0, 2), rtol=1e-5, atol=1e-6)


def test_no_gradient_reaches_a_teacher_and_it_does_not_drop() -> None:
    model = taught().train()
    assert not any(module.training for module in model.others.modules())
    assert model.last.training
    model.loss(first_batch(model)).total.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in model.others.parameters())
    assert all(p.grad is not None for p in model.last.parameters())


def test_item_vectors_are_compared_through_a_map_where_widths_differ() -> None:
    model = taught(imitate_predictions=False).eval()
    assert list(model.maps) == ["1"]
    batch = first_batch(model)
    assert batch.targets is not None
    ids = sorted({*batch.tokens.tolist(), *batch.targets.tolist()})
    mine = model.last.item_inputs()[ids]
    expected = [
        (mine - model.parts[0].item_inputs()[ids]).square().mean(),
        (model.maps["1"](mine) - model.parts[1].item_inputs()[ids]).square().mean(),
    ]
    torch.testing.assert_close(model._distances(batch), torch.stack(expected))


def test_nobody_heeded_is_the_student_alone_bit_for_bit(tmp_path: Path) -> None:
    data = dataset_of(shop())
    how: dict[str, Any] = {"seed": 3, "progress": False}
    fit(data, "gru4rec", run=tmp_path / "alone", settings={**STUDENT["settings"], **SHORT}, **how)
    settings = {"student": STUDENT, "teachers": TEACHERS, "teacher_weight": 0.0, **SHORT}
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
    monkeypatch.setattr(kept, "version", lambda: "another")
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


def test_a_student_that_walks_in_lanes_imitates_after_what_each_has_read() -> None:
    torch.manual_seed(0)
    settings = {"student": part("gru4rec_official", negatives=5, bptt=2), "teachers": ["mc1"]}
    model = cast("SSI", make_model("ssi", N_ITEMS, settings))
    train = shop()
    model.prepare(train, CPU)
    stream = model.training_stream(train, batch_size=4, seed=0, device=CPU)
    for step in range(3):
        batch = stream.batch(stream.order(0), 0, step)
        assert batch.until is not None
        ends = np.cumsum(batch.lengths)
        for row, (user, until) in enumerate(zip(batch.users.tolist(), batch.until, strict=True)):
            read = batch.tokens[ends[row] - batch.lengths[row] : ends[row]].tolist()
            assert train[user][until - len(read) : until].tolist() == read
        assert torch.isfinite(model.loss(batch).total)


def test_what_stays_is_the_student(tmp_path: Path) -> None:
    settings = {"student": STUDENT, "teachers": TEACHERS, **SHORT}
    data = dataset_of(shop())
    run = fit(data, "ssi", run=tmp_path / "ssi", settings=settings, progress=False)
    assert load_model(run.recommender_folder)[0].name == "gru4rec"
    assert (run.path / "stages").is_dir()
    assert 0 <= evaluate(run, data)["HR@10"] <= 1


LANES = {**part("gru4rec_official", negatives=5), "training": SHORT}


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


def test_parts_are_named_on_the_command_line_and_read_from_their_recipes() -> None:
    config, _ = resolve("ssi", settings={"student": "gru4rec/tuned", "teachers": "[sasrec, mc1]"})
    again, _ = resolve("ssi", settings=config.model_dump(mode="json"))
    assert again == config
    said = json.loads(config.model_dump_json())
    assert said["student"]["settings"]["hidden"] == 128
    assert said["teachers"][0]["recipe"] == "paper"
    assert said["teachers"][0]["settings"]["loss"] == "bce"
    assert said["teachers"][0]["training"]["batch_size"] == 256
    assert said["teachers"][1]["model"] == "mc1" and not said["teachers"][1]["training"]
    plain, _ = resolve("ssi", settings={"teachers": "persona"})
    (teacher,) = json.loads(plain.model_dump_json())["teachers"]
    assert (teacher["model"], teacher["settings"]["task"]) == ("consistency", "persona")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"student": "mc1"}, "learns by counting"),
        ({"teachers": []}, "`teachers` is empty"),
        ({"student": "gru"}, "unknown model `gru`; did you mean"),
        ({"student": "hgn/papr"}, "unknown recipe `papr`; did you mean `paper`"),
        ({"student": {"model": "hgn", "settings": {"widht": 3}}}, "unknown key `widht`"),
        ({"teachers": 3}, "teachers"),
        ({"student": {"model": "hgn", "training": {"epochs": 3}}}, "trained as the run is"),
        ({"max_length": 20}, "lengths of their own"),
        ({"teachers": ["mc1"], "imitate_predictions": False}, "nothing to learn from it"),
    ],
)
def test_a_part_that_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config, _ = resolve("ssi", settings={"teachers": ["sasrec"], **settings})
        make_model("ssi", N_ITEMS, config.model_dump())
