"""Stages that are kept: what decides one is its key, and what is found is what would be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_models import MAX_LENGTH, dataset_of, part, shop
from small_parts import SHORT
from torch import Tensor

from nextup.data.dataset import Dataset
from nextup.errors import DivergedError, RunError
from nextup.evaluation.protocol import Protocol
from nextup.models.base import ModelConfig, Stage
from nextup.models.next_item import NextItemConfig
from nextup.models.s3rec import S3Rec
from nextup.models.store import load_model
from nextup.train import kept as stages_kept
from nextup.train.config import TrainConfig
from nextup.train.fit import fit
from nextup.train.kept import key_of
from nextup.train.run import Run

SMALL: dict[str, Any] = {
    "width": 8,
    "heads": 1,
    "layers": 1,
    "max_length": MAX_LENGTH,
    "loss": "bce",
    "epochs": 2,
    "batch_size": 16,
    "pretrain_batch_size": 64,
    "pretrain_epochs": 2,
    "map_weight": 1.0,
}
FINE = [("fine-tune", False)] * 2
TRAINED = [("pre-train", False)] * 2
DATA = dataset_of(shop(40))
AMONG = Protocol(candidates="sampled", n_negatives=9)


def made(
    place: Path, kept: Path | None = None, data: Dataset = DATA, **more: Any
) -> tuple[list[tuple[str, bool]], dict[str, Tensor]]:
    """Fit S3-Rec: which stages were trained or taken over, epoch by epoch, and the weights."""
    how = {key: more.pop(key) for key in ("protocol", "seed", "resume", "recipe") if key in more}
    settings = {**SMALL, **more}
    run = fit(
        data, "s3rec", run=place, settings=settings, kept=kept, device="cpu", progress=False, **how
    )
    said = [(line["stage"], line.get("reused", False)) for line in run.log()]
    return said, load_model(run.recommender_folder)[0].state_dict()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the stages of one fit."""
    place, threads = tmp_path_factory.mktemp("kept"), torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: sums are rounded otherwise with more
    assert made(place / "first", place / "stages")[0] == TRAINED + FINE
    torch.set_num_threads(threads)
    return place / "stages"


LATER: dict[str, Any] = {
    "loss": "softmax",
    "targets": "prefix",
    "negatives": 3,
    "negative_power": 0.5,
    "in_batch": True,
    "logq": False,
    "calibration": 0.1,
    "exclude_future": True,
    "output_precision": "bf16",
}
"""Another value of each setting that says how fine-tuning learns."""


def test_the_settings_of_learning_are_those_meant_here() -> None:
    assert LATER.keys() == NextItemConfig.model_fields.keys() - ModelConfig.model_fields.keys()


@pytest.mark.parametrize("name", LATER)
def test_what_fine_tuning_learns_from_leaves_no_trace_in_pretraining(
    name: str, kept: Path, tmp_path: Path
) -> None:
    settings = {name: LATER[name]} if name != "output_precision" else {**LATER, "in_batch": False}
    log, found = made(tmp_path / "over", kept, **settings)
    assert log == [("pre-train", True), *FINE]
    log, anew = made(tmp_path / "anew", **settings)
    assert log == TRAINED + FINE
    assert all(torch.equal(found[key], anew[key]) for key in anew)


def test_validation_by_another_protocol_or_metric_follows_the_same_pretraining(
    kept: Path, tmp_path: Path
) -> None:
    for name, more in {
        "among": {"protocol": AMONG},
        "picked": {"metric": "HR@10", "patience": 3, "validate_every": 2},
        "wider": {"batch_size": 32},
    }.items():
        assert made(tmp_path / name, kept, **more)[0] == [("pre-train", True), *FINE]


@pytest.mark.parametrize(
    "more",
    [
        {"mip_weight": 0.5},
        {"mask_share": 0.3},
        {"dropout": 0.1},
        {"average": 0.9},
        {"learning_rate": 0.1},
        {"optimizer": "sgd"},
        {"pretrain_batch_size": 32},
        {"pretrain_epochs": 1},
        {"seed": 1},
        {"data": dataset_of(shop(41))},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_decides_pretraining_is_told_apart(
    more: dict[str, Any], kept: Path, tmp_path: Path
) -> None:
    assert made(tmp_path / "run", kept, **more)[0][0] == ("pre-train", False)


def test_a_running_average_goes_on_from_what_was_taken_over(tmp_path: Path) -> None:
    stages, more = tmp_path / "stages", {"average": 0.8}
    made(tmp_path / "first", stages, **more)
    log, found = made(tmp_path / "over", stages, **more, loss="softmax")
    assert log[0] == ("pre-train", True)
    _, anew = made(tmp_path / "anew", **more, loss="softmax")
    assert all(torch.equal(found[key], anew[key]) for key in anew)


def with_attributes(attributes: list[Any]) -> Dataset:
    return replace(DATA, catalog=replace(DATA.catalog, attributes={"attributes": attributes}))


def test_items_with_other_attributes_are_other_data(kept: Path, tmp_path: Path) -> None:
    own = (DATA.catalog.attributes or {})["attributes"]
    swapped = [own[1], own[0], *own[2:]]
    for name, attributes in {"swapped": swapped, "more": [["new"], *own[1:]]}.items():
        other = with_attributes(attributes)
        assert other.checksum == DATA.checksum
        assert made(tmp_path / name, kept, other)[0] == TRAINED + FINE
        with pytest.raises(RunError, match="another catalogue"):
            made(tmp_path / name, kept, resume=True)
        blind = {"map_weight": 0.0}  # then they are not looked at
        made(tmp_path / "blind", kept, resume=True, **blind)
        assert made(tmp_path / f"{name} blind", kept, other, **blind)[0][0][1]


def test_a_teacher_and_the_same_model_alone_share_both_stages(tmp_path: Path) -> None:
    kept = tmp_path / "stages"
    assert made(tmp_path / "first", kept, recipe="paper")[0] == TRAINED + FINE
    teacher = {
        "model": "s3rec",
        "settings": {k: v for k, v in SMALL.items() if k not in ("epochs", "batch_size")},
        "training": {"epochs": 2, "batch_size": 16},
    }
    settings: dict[str, Any] = {"student": part("gru4rec"), "teachers": [teacher], **SHORT}

    def stages(name: str, kept: Path | None, **more: Any) -> tuple[list[bool], Run]:
        run = fit(
            DATA, "ssi", run=tmp_path / name, settings={**settings, **more}, kept=kept,
            device="cpu", progress=False,
        )  # fmt: skip
        return [line.get("reused", False) for line in run.log()], run

    over, one = stages("over", kept)
    assert over == [True, True, False, False]
    anew, other = stages("anew", tmp_path / "empty")
    assert anew == [False] * 6
    weights = [load_model(run.recommender_folder)[0].state_dict() for run in (one, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert made(tmp_path / "alone", tmp_path / "empty", recipe="paper")[0] == [
        ("pre-train", True),
        ("fine-tune", True),
    ]
    begun = {**teacher, "start": 1}
    assert stages("elsewhere", kept, teachers=[begun])[0] == [False] * 6


def test_a_stage_of_other_code_is_trained_again(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    for file in kept.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            noted = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        del noted["code"]  # as earlier versions wrote it
        save_file(tensors, tmp_path / "stages" / file.name, metadata=noted)
    assert made(tmp_path / "run", tmp_path / "stages")[0] == TRAINED + FINE


def test_a_device_other_than_the_cpu_is_part_of_the_key() -> None:
    stage, config = Stage("train", key="model"), TrainConfig()
    keys = {
        key_of(stage, config, about, processes)
        for about in ({}, {"device": "cuda"}, {"protocol": 1}, {"seed": 1})
        for processes in (1, 2)
    }
    assert len(keys) == 8 and None not in keys
    blind = replace(stage, validates=False)
    assert key_of(blind, config, {"protocol": 1}, 1) == key_of(blind, config, {}, 1)
    assert key_of(replace(stage, key=None), config, {}, 1) is None


def test_weights_that_the_last_step_of_pretraining_broke_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = S3Rec.begin_epoch

    def breaking(self: S3Rec, epoch: int) -> None:
        begin(self, epoch)
        if self.heads is not None and epoch == 1:
            self.heads.gap.register_hook(lambda grad: grad * torch.nan)

    monkeypatch.setattr(S3Rec, "begin_epoch", breaking)
    one_step = {"pretrain_batch_size": 10_000}  # an epoch is one step, whose loss is fine
    with pytest.raises(DivergedError, match="stage `pre-train` ended with weights"):
        made(tmp_path / "run", tmp_path / "stages", **one_step)
    assert not list((tmp_path / "stages").iterdir())


def test_pretraining_is_not_validated(tmp_path: Path) -> None:
    made(tmp_path / "run")
    measured = [(line["stage"], "NDCG@10" in line) for line in Run(tmp_path / "run").log()]
    assert measured == [("pre-train", False)] * 2 + [("fine-tune", True)] * 2


def test_a_stage_that_other_code_began_is_gone_on_with_but_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = S3Rec.begin_epoch

    def dying(self: S3Rec, epoch: int) -> None:
        if self.heads is not None and epoch == 1:
            raise KeyboardInterrupt
        begin(self, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(S3Rec, "begin_epoch", dying)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "run", tmp_path / "stages")
    with monkeypatch.context() as patched:
        patched.setattr(stages_kept, "code_mark", lambda: "another")
        assert made(tmp_path / "run", tmp_path / "stages", resume=True)[0] == TRAINED + FINE
    # Of the two stages only the second was begun by the code that ended it.
    assert len(list((tmp_path / "stages").iterdir())) == 1
