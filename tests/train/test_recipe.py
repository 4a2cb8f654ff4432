"""Recipes and settings: all that ships resolves, and every slip is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextup.errors import ConfigError
from nextup.evaluation.metrics import parse_metric
from nextup.models.registry import available_models, make_model
from nextup.studies.cell import Cell
from nextup.train.config import TrainConfig
from nextup.train.recipe import check_of_use, model_of, recipes, resolve

SHIPPED = sorted(recipes())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_says_what_it_is_and_resolves(name: str) -> None:
    model, short = name.split("/")
    content = recipes()[name]
    assert set(content) <= {"about", "model", "train"}
    assert len(content["about"]) > 10 and "\n" not in content["about"]
    config, train = resolve(model, short)
    assert resolve(model, name) == (config, train)
    said = {k: v for k, v in content["model"].items() if k not in ("student", "teachers")}
    for key, value in said.items():  # (parts are spelt out)
        assert config.model_dump(mode="json")[key] == value
    for key, value in content["train"].items():
        assert getattr(train, key) == value
    parse_metric(train.metric)
    assert make_model(model, 20, config.model_dump()).config == config


def test_every_recipe_belongs_to_a_model() -> None:
    assert {name.split("/")[0] for name in SHIPPED} <= set(available_models())
    assert recipes("sasrec").keys() == {n for n in SHIPPED if n.startswith("sasrec/")}
    assert "sasrec/paper" in SHIPPED and "gru4rec/paper" in SHIPPED


def test_the_published_sasrec_is_the_one_of_the_papers() -> None:
    config, train = resolve("sasrec", "paper")
    published = {"block": "s3", "loss": "bce", "negatives": 1, "width": 64, "layers": 2}
    published |= {"heads": 2, "max_length": 50, "dropout": 0.5, "targets": "every"}
    assert {key: getattr(config, key) for key in published} == published
    assert (train.batch_size, train.learning_rate, train.weight_decay) == (256, 1e-3, 0.0)
    original, train = resolve("sasrec", "original")
    assert getattr(original, "block", None) == "original" and train.beta2 == 0.98


FOLLOWS_LEAVE_ONE_OUT = {"targets": "every", "max_length": 50}
PUBLISHED: dict[str, dict[str, object]] = {
    "bpr": {"width": 64, "bias": True, "negatives": 1, "batch_size": 1024, "epochs": 500}
    | {f"{part}_l2": 1e-3 for part in ("user", "item", "negative", "bias")},
    "fpmc": {"width": 64, "loss": "bpr", "negatives": 1, "l2": 1e-3, "epochs": 300},
    "fossil": {"width": 64, "loss": "bpr", "order": 3, "alpha": 0.2, "l2": 1e-3, "epochs": 300},
    "gru4rec": {"width": 64, "hidden": 64, "layers": 1, "dropout": 0.3, "loss": "softmax"}
    | {"batch_size": 256, "epochs": 200, **FOLLOWS_LEAVE_ONE_OUT},
    "gru4rec_official": {"loss": "cross_entropy", "hidden": 100, "negatives": 2048}
    | {"negative_power": 0.5, "logq": 1.0, "optimizer": "adagrad", "learning_rate": 0.065}
    | {"epochs": 10, "batch_size": 100, "embedding_dropout": 0.45, "dropout": 0.0},
    "caser": {"width": 50, "horizontal": 16, "vertical": 4, "max_length": 5, "window_targets": 3}
    | {"dropout": 0.5, "weight_decay": 1e-6, "coupled_decay": True, "batch_size": 512}
    | {"epochs": 50, "loss": "bce", "negatives": 1},  # one for each of three targets
    "nextitnet": {"width": 64, "dilations": (1, 2, 1, 2, 1, 2), "kernel": 3, "block": "b"}
    | {"dropout": 0.0, "batch_size": 128, "loss": "softmax", **FOLLOWS_LEAVE_ONE_OUT},
    "grec": {"width": 64, "encoder_dilations": (1, 4, 1, 4), "decoder_dilations": (1, 4, 1, 4)}
    | {"l2": 1e-3, "gap_share": 0.5, "batch_size": 256, "max_length": 50, "dropout": 0.0},
    "hgn": {"width": 50, "max_length": 5, "window_targets": 3, "l2": 1e-3, "batch_size": 4096}
    | {"epochs": 200, "loss": "bpr", "negatives": 1},
    "srgnn": {"width": 100, "steps": 1, "weight_decay": 1e-5, "batch_size": 100, "epochs": 30}
    | {"schedule": "steps", "drop_every": 3, "drop_factor": 0.1, "targets": "prefix"},
    "gcsan": {"width": 120, "layers": 4, "attention_weight": 0.6, "batch_size": 50}
    | {"schedule": "steps", "drop_every": 3, "drop_factor": 0.1, "weight_decay": 1e-5},
    "shan": {"width": 100, "short": 2, "vector_l2": 1e-2, "attention_l2": 1e-4, "loss": "bpr"}
    | {"batch_size": 256, "epochs": 100, "negatives": 1},
    "bert4rec": {"width": 64, "layers": 2, "heads": 2, "dropout": 0.5, "attention_dropout": 0.2}
    | {"mask_share": 0.6, "learning_rate": 1e-4, "warmup_steps": 100, "schedule": "linear"}
    | {"weight_decay": 0.01, "clip_norm": 5.0, "batch_size": 256},
    "s3rec": {"width": 64, "layers": 2, "heads": 2, "dropout": 0.5, "mask_share": 0.2}
    | {"mip_weight": 1.0, "sp_weight": 0.5, "pretrain_batch_size": 100, "batch_size": 256}
    | {"pretrain_epochs": 100, "loss": "bce", "negatives": 1},
    "s3rec/attributes": {"aap_weight": 0.2, "map_weight": 1.0, "mip_weight": 1.0}
    | {"sp_weight": 0.5, "mask_share": 0.2},
    "cl4srec": {"width": 64, "layers": 2, "heads": 2, "dropout": 0.5, "contrast_weight": 0.1}
    | {"batch_size": 256, "epochs": 300},
    "srma": {"width": 64, "layers": 2, "heads": 2, "dropout": 0.5, "batch_size": 256},
}
"""What the authors say or run; where they are silent, what the recipes were begun with."""


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_recipes_of_papers_hold_what_the_papers_say(name: str) -> None:
    model, _, recipe = name.partition("/")
    config, train = resolve(model, recipe or "paper")
    said = {"learning_rate": 1e-3, **PUBLISHED[name]}
    found = {key: getattr(train, key, getattr(config, key, None)) for key in said}
    assert found == said
    expected = PUBLISHED[name].get("optimizer", "adam")
    assert train.optimizer == expected


def test_no_recipe_means_the_defaults() -> None:
    config, train = resolve("gru4rec")
    assert config == available_models()["gru4rec"].Config() and train == TrainConfig()


def test_single_settings_win_over_the_recipe_whether_of_model_or_training() -> None:
    config, train = resolve("sasrec", "paper", {"dropout": 0.1, "epochs": 3})
    assert getattr(config, "dropout", None) == 0.1 and train.epochs == 3
    assert getattr(config, "loss", None) == "bce" and train.batch_size == 256


@pytest.mark.parametrize(
    ("model", "recipe", "settings", "said"),
    [
        ("sasrek", None, {}, "unknown model `sasrek`; did you mean `sasrec`?"),
        ("sasrec", "papper", {}, "unknown recipe `papper`; did you mean `paper`?"),
        ("sasrec", "gru4rec/paper", {}, "unknown recipe `gru4rec/paper`"),
        ("pop", "paper", {}, "model pop has no recipes"),
        ("sasrec", None, {"droput": 1}, "unknown key `droput`; did you mean `dropout`?"),
        ("sasrec", "paper", {"epoch": 1}, "unknown key `epoch`; did you mean `epochs`?"),
        ("pop", None, {"width": 1}, "unknown key `width`"),
        ("sasrec", None, {"dropout": "much"}, "`dropout`: .*'much'"),
        ("sasrec", None, {"epochs": -1}, "training: `epochs`: .*-1"),
        ("sasrec", None, {"batch_size": 0}, "training: `batch_size`: .*0"),
        ("sasrec", None, {"learning_rate": 0}, "training: `learning_rate`"),
        ("sasrec", None, {"schedule": "stairs"}, "training: `schedule`: .*'stairs'"),
        ("sasrec", None, {"average": 1.0}, "training: `average`"),
    ],
)
def test_a_slip_is_one_line_that_names_it_and_the_nearest_known(
    model: str, recipe: str | None, settings: dict[str, object], said: str
) -> None:
    pattern = said if ".*" in said else said.replace("?", r"\?")
    with pytest.raises(ConfigError, match=pattern) as caught:
        resolve(model, recipe, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["pop", "mc1"])
def test_a_model_that_counts_takes_no_settings_of_training(model: str) -> None:
    with pytest.raises(ConfigError, match=f"{model}: learns by counting, so `epochs` would"):
        check_of_use(model, {"epochs": 3})
    check_of_use("sasrec", {"epochs": 3, "width": 8})
    assert resolve(model, settings={"epochs": 3})  # a study gives its settings to all models


MINE = """
about = "mine"

[model]
width = 16

[train]
epochs = 3
"""


def test_a_recipe_may_be_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "gru4rec" / "mine.toml"
    file.parent.mkdir()
    file.write_text(MINE)
    config, train = resolve("gru4rec", str(file), {"epochs": 4})
    assert (getattr(config, "width", 0), train.epochs) == (16, 4)
    assert model_of(str(file)) == "gru4rec" and model_of(str(tmp_path / "mine.toml")) is None
    assert (model_of("bpr/paper"), model_of("paper"), model_of(None)) == ("bpr", None, None)
    with pytest.raises(ConfigError, match=r"is one of gru4rec \(its folder\), not of sasrec"):
        resolve("sasrec", str(file))
    with pytest.raises(ConfigError, match="studies know recipes by their names"):
        Cell("toys", "gru4rec", str(file))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("width = 16", "`width` does not belong there; settings stand in the tables"),
        ("model = 3", "`model` does not belong there"),
        ("[model]\nwidht = 3", "unknown key `widht`; did you mean `width`"),
        ("[model", "is not TOML"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(
    content: str | None, said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "mine.toml").write_text(content)
    with pytest.raises(ConfigError, match=said) as caught:
        resolve("sasrec", str(tmp_path / "mine.toml"))
    assert "\n" not in str(caught.value)
