"""A new model is one file and one recipe: written here, fitted, measured, loaded and answering."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest
from small_models import dataset_of, forms, shop

import nextup
from nextup.errors import ConfigError
from nextup.models import registry
from nextup.train import recipe
from nextup.train.assess import evaluate
from nextup.train.fit import fit
from nextup.train.recipe import recipes, resolve

FILE = '''
"""Bag: a history is the mean of its items, however they were ordered."""

import torch
from pydantic import Field
from torch import nn

from nextup.models.registry import register
from nextup.models.next_item import NextItemConfig, NextItemRecommender


class BagConfig(NextItemConfig):
    width: int = Field(64, ge=1, description="width of the vectors")


@register
class Bag(NextItemRecommender):
    """The running mean of all items so far."""

    name = "bag"
    paper = "written for a test"
    Config = BagConfig

    def __init__(self, config, n_items):
        super().__init__(config, n_items)
        self.items = nn.Embedding(n_items + 1, config.width, padding_idx=0)
        nn.init.normal_(self.items.weight, std=0.05)

    def encode(self, batch, last_only):
        means = [
            x.cumsum(0) / torch.arange(1, len(x) + 1)[:, None]
            for x in self.items(batch.tokens).split(batch.lengths.tolist())
        ]
        states = torch.cat(means)
        return states[batch.last_at] if last_only else states

    def item_vectors(self):
        return self.items.weight
'''

RECIPE = """
about = "a bag of items"
[model]
loss = "softmax"
width = 16
max_length = 10
[train]
epochs = 2
batch_size = 32
learning_rate = 1e-2
"""


@pytest.fixture
def bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The file and the recipe of a new model, where a contributor would put them."""
    registry.available_models()
    before = dict(registry._REGISTER)
    room = tmp_path / "recipes"
    shutil.copytree(Path(str(resources.files("nextup.recipes"))), room)
    (room / "bag").mkdir()
    (room / "bag" / "paper.toml").write_text(RECIPE)
    monkeypatch.setattr(recipe.resources, "files", lambda name: room)
    (tmp_path / "bag.py").write_text(FILE)
    spec = importlib.util.spec_from_file_location("bag", tmp_path / "bag.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    registry._REGISTER.clear()
    registry._REGISTER.update(before)


def test_one_file_and_one_recipe_are_a_whole_model(bag: ModuleType, tmp_path: Path) -> None:
    data = dataset_of(shop(80))
    run = fit(
        data, "bag", recipe="paper", run=tmp_path / "run", device="cpu", progress=False, seed=1
    )
    assert run.config["model_config"]["width"] == 16
    assert set(evaluate(run, data, device="cpu")) >= {"HR@10", "NDCG@10", "MRR"}
    loaded = nextup.load(run.path)
    (answer,) = loaded.recommend([["i3", "i5", "i1"]], k=4)
    assert len(answer.items) == 4


def test_a_registered_model_is_listed_checked_and_under_the_conformance_suite(
    bag: ModuleType,
) -> None:
    assert registry.available_models()["bag"] is bag.Bag
    assert any(form.model == "bag" for form in forms())
    assert list(recipes("bag")) == ["bag/paper"]
    with pytest.raises(ConfigError, match="unknown key `widht`; did you mean `width`"):
        resolve("bag", settings={"widht": 3})
    (form,) = [form for form in forms() if form.model == "bag"]
    assert form.all_settings()["width"] == 16, "settings are shrunk by the names of their fields"
    assert isinstance(form.fresh(), bag.Bag)


def test_the_register_is_clean_afterwards() -> None:
    assert "bag" not in registry.available_models()
    with pytest.raises(ConfigError, match="unknown model `bag`"):
        registry.model_class("bag")


def test_a_misspelt_model_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(ConfigError, match="unknown model `sasrek`; did you mean `sasrec`"):
        registry.make_model("sasrek", 10)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("sasrec", {"width": 10, "heads": 3}, "must divide width"),
        ("sasrec", {"dropout": 1.5}, "`dropout`.*given: 1.5"),
        ("sasrec", {"loss": "sofmax"}, "`loss`.*'softmax'.*given: 'sofmax'"),
        ("gru4rec", {"layers": 0}, "`layers`.*given: 0"),
        ("mc1", {"backoff": -1.0}, "`backoff`"),
        ("sasrec", {"max_length": 0}, "`max_length`"),
        ("gru4rec", {"max_length": -3}, "`max_length`"),
    ],
)
def test_a_setting_out_of_range_is_one_line_that_names_it(
    name: str, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        registry.make_model(name, 10, settings)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"model {name}: ")


def test_a_config_cannot_be_changed_after_it_was_checked() -> None:
    model = registry.make_model("gru4rec", 10)
    with pytest.raises(Exception, match="frozen"):
        model.config.max_length = 3


def test_a_model_is_a_file_that_can_be_read_at_once() -> None:
    lengths = {
        file.name: len(file.read_text(encoding="utf-8").splitlines())
        for file in Path(registry.__file__).parent.glob("*.py")
        if "\n@register\n" in file.read_text(encoding="utf-8")
    }
    assert len(lengths) >= 20
    assert {name: length for name, length in lengths.items() if length >= 200} == {}
