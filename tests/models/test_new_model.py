"""A new model is one file and one recipe: written here, fitted, measured, loaded and answering."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from textwrap import dedent
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

GUIDE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILE = dedent(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)[0])
"""The model that the guide shows."""

RECIPE = """
about = "the mean of a history"
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
def guided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The file and the recipe of a new model, where a contributor would put them."""
    registry.available_models()
    before = dict(registry._REGISTER)
    room = tmp_path / "recipes"
    shutil.copytree(Path(str(resources.files("nextup.recipes"))), room)
    (room / "mymodel").mkdir()
    (room / "mymodel" / "paper.toml").write_text(RECIPE)
    monkeypatch.setattr(recipe.resources, "files", lambda name: room)
    (tmp_path / "mymodel.py").write_text(FILE)
    spec = importlib.util.spec_from_file_location("mymodel", tmp_path / "mymodel.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    registry._REGISTER.clear()
    registry._REGISTER.update(before)


def test_one_file_and_one_recipe_are_a_whole_model(guided: ModuleType, tmp_path: Path) -> None:
    data = dataset_of(shop(80))
    run = fit(
        data, "mymodel", recipe="paper", run=tmp_path / "run", device="cpu", progress=False, seed=1
    )
    assert run.config["model_config"]["width"] == 16
    assert set(evaluate(run, data, device="cpu")) >= {"HR@10", "NDCG@10", "MRR"}
    loaded = nextup.load(run.path)
    (answer,) = loaded.recommend([["i3", "i5", "i1"]], k=4)
    assert len(answer.items) == 4


def test_a_registered_model_is_listed_checked_and_under_the_conformance_suite(
    guided: ModuleType,
) -> None:
    assert registry.available_models()["mymodel"] is guided.MyModel
    assert any(form.model == "mymodel" for form in forms())
    assert list(recipes("mymodel")) == ["mymodel/paper"]
    with pytest.raises(ConfigError, match="unknown key `widht`; did you mean `width`"):
        resolve("mymodel", settings={"widht": 3})
    (form,) = [form for form in forms() if form.model == "mymodel"]
    assert form.all_settings()["width"] == 16, "settings are shrunk by the names of their fields"
    assert isinstance(form.fresh(), guided.MyModel)


def test_the_register_is_clean_afterwards() -> None:
    assert "mymodel" not in registry.available_models()
    with pytest.raises(ConfigError, match="unknown model `mymodel`"):
        registry.model_class("mymodel")


def test_a_misspelt_model_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(ConfigError, match="unknown model `sasrek`; did you mean `sasrec`"):
        registry.make_model("sasrek", 10)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("sasrec", {"width": 10, "heads": 3}, "must divide width"),
        ("sasrec", {"inner": 0}, "`inner`.*given: 0"),
        (
            "srma",
            {"contrast_padding": True},
            "complement_weight to 0 or leave contrast_padding out",
        ),
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
