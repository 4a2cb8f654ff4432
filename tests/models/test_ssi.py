"""SSI: what a student imitates, of whom, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from small_models import N_ITEMS, Form, dataset_of, first_batch, forms, part, shop
from small_parts import STUDENT, TEACHERS
from torch.nn.functional import kl_div

from nextup.data.batches import batch_of_lists
from nextup.data.sequences import Sequences
from nextup.models.registry import make_model
from nextup.models.ssi import SSI

CPU = torch.device("cpu")


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


@pytest.mark.parametrize("more", [{}, {"imitate_over": 5}, {"temperature": 2.0}])
def test_where_nothing_was_drawn_nothing_is_imitated(more: dict[str, Any]) -> None:
    model = taught(keep_mb=0, imitate_share=1e-9, **more)
    total, each = model._predictions(first_batch(model), model.weights())
    total.backward()  # type: ignore[no-untyped-call]
    assert float(total.detach()) == 0.0 and each.tolist() == [0.0, 0.0]


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


@pytest.mark.parametrize("table", ["inputs", "outputs"])
def test_item_vectors_are_compared_through_a_map_where_widths_differ(table: str) -> None:
    model = taught(imitate_predictions=False, imitate_table=table).eval()
    assert list(model.maps) == ["1"]
    batch = first_batch(model)
    assert batch.targets is not None
    ids = sorted({*batch.tokens.tolist(), *batch.targets.tolist()})
    of = {"inputs": lambda part: part.item_inputs(), "outputs": lambda part: part.item_vectors()}
    mine = of[table](model.last)[ids]
    expected = [
        (mine - of[table](model.parts[0])[ids]).square().mean(),
        (model.maps["1"](mine) - of[table](model.parts[1])[ids]).square().mean(),
    ]
    torch.testing.assert_close(model._distances(batch), torch.stack(expected))


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


@pytest.mark.parametrize("given", [None, 0.7])
def test_the_loss_is_equation_8(given: float | None) -> None:
    model = taught(places=500, teacher_weight=given).eval()
    batch = first_batch(model)
    with torch.no_grad():
        losses = model.loss(batch)
        _, divergence = model._predictions(batch, model.weights())
        distance = model._distances(batch)
        own = model.last.loss(batch).total
        weights = model.weights()
        expected = own + (weights * (divergence + distance)).sum()
        if given is None:
            assert not torch.allclose(weights, torch.ones(2))
            inverse = sum(1 / float(weight) for weight in weights)
            expected = expected + inverse + inverse**2
        else:
            torch.testing.assert_close(weights, torch.full((2,), given))
    torch.testing.assert_close(losses.total, expected)
    torch.testing.assert_close(losses.parts["divergence"], divergence.mean())
    torch.testing.assert_close(losses.parts["item_distance"], distance.mean())


def test_over_some_items_both_are_shares_of_these_alone() -> None:
    whole = taught(imitate_items=False, places=500).eval()
    some = taught(imitate_items=False, places=500, imitate_over=3000).eval()
    batch = first_batch(whole)
    with torch.no_grad():
        found = [model._predictions(batch, model.weights())[1] for model in (whole, some)]
    torch.testing.assert_close(found[1], found[0])  # so many draws leave none out
    factors = whole.classroom.say(np.array([3, 9]), np.array([2, 1]))[0]
    ids = torch.tensor([0, 4, 7, 30])
    torch.testing.assert_close(factors.over(ids).logits(0, 2), factors.logits(0, 2)[ids[1:] - 1])


def test_how_well_teachers_align_is_said() -> None:
    settings = {"student": STUDENT, "places": 500}
    found = {}
    for name, teachers in (
        ("one start", [part("sasrec"), part("sasrec")]),
        ("two starts", [part("sasrec"), {**part("sasrec"), "start": 1}]),
        ("two widths", [part("sasrec"), part("sasrec", width=12)]),
    ):
        torch.manual_seed(0)
        model = cast("SSI", make_model("ssi", N_ITEMS, {**settings, "teachers": teachers}))
        model.prepare(shop(), CPU)
        model.begin_stage(model.stages()[-1].name, resumed=False)
        assert model.classroom
        found[name] = model.diagnostics().get("teachers.cosine")
    assert found["one start"] == pytest.approx(1.0)
    assert found["two starts"] is not None and abs(found["two starts"]) < 0.3
    assert found["two widths"] is None


def test_item_vectors_of_one_width_are_mapped_only_on_demand() -> None:
    teachers = [part("sasrec"), part("sasrec", width=12)]
    same, mapped = taught(teachers=teachers), taught(teachers=teachers, map_items=True)
    assert sorted(same.maps) == ["1"] and sorted(mapped.maps) == ["0", "1"]
    assert not taught(teachers=[{"model": "mc1"}], map_items=True).maps  # it has no item vectors
    mine = mapped.last.item_inputs()
    turn = torch.linalg.qr(torch.randn(mine.shape[1], mine.shape[1])).Q
    with torch.no_grad():  # a map that knows the rotation leaves no distance
        for model in (same, mapped):
            model.parts[0].item_inputs().copy_(model.last.item_inputs() @ turn)
        mapped.maps["0"].weight.copy_(turn.T)  # type: ignore[operator]
    batch = first_batch(mapped)
    found = [float(model._distances(batch)[0].detach()) for model in (mapped, same)]
    assert found[0] < 1e-10 < 0.01 < found[1]


def small_part(form: Form) -> dict[str, Any]:
    return {"model": form.model, "settings": form.all_settings()}


FIRST = {form.model: form for form in reversed(forms())}


def imitated(student: dict[str, Any], teachers: list[Any]) -> tuple[float, float]:
    """Return how far a student is from its teachers at first, and after imitating them a little."""
    torch.manual_seed(0)
    settings = {"student": student, "teachers": teachers}
    model = cast("SSI", make_model("ssi", N_ITEMS, settings))
    model.meet(dataset_of(shop()).catalog)
    model.prepare(shop(), CPU)
    with torch.no_grad():  # untrained, many teachers say nothing that could be imitated
        for parameter in (p for teacher in model.parts[:-1] for p in teacher.parameters()):
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    model.begin_stage(model.stages()[-1].name, resumed=False)
    batch = first_batch(model)
    losses = model.loss(batch)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(losses.total)
    model.zero_grad()
    heard = torch.ones(len(teachers))
    found = []
    # Of imitation alone, so that nothing else the student learns can bring it nearer.
    optimizer = torch.optim.Adam(model.last.parameters(), lr=0.03)
    for step in range(60):
        torch.manual_seed(step)
        divergence, _ = model._predictions(batch, heard)
        found.append(float(divergence.detach()))
        divergence.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return found[0], found[-1]


@pytest.mark.parametrize("form", FIRST.values(), ids=str)
def test_any_model_teaches(form: Form) -> None:
    before, after = imitated(STUDENT, [small_part(form)])
    assert 0 <= after < 0.85 * before


@pytest.mark.parametrize(
    "form", [form for form in FIRST.values() if not form.counts and form.model != "ssi"], ids=str
)
def test_any_model_that_learns_is_taught(form: Form) -> None:
    before, after = imitated(small_part(form), [part("sasrec"), "mc1"])
    assert 0 <= after < 0.85 * before


def test_the_weights_of_teachers_do_not_decay() -> None:
    model = taught()
    (group,) = [
        g for g in model.parameter_groups() if any(p is model.log_weights for p in g.parameters)
    ]
    assert not group.decays and len(group.parameters) == 1
