"""The whole way from a log to recommendations, and what each command says on it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from .command_line import SMALL, Cli


def test_prepare_tells_what_it_guessed_and_what_to_type_next(cli: Cli, made: Path) -> None:
    found = cli("prepare", made / "log.csv", "--items", made / "titles.csv")
    assert found.code == 0
    assert "columns guessed: user = `user`" in found.err
    assert found.err.rstrip().endswith("next: nextup fit data/log")
    assert "120" in found.out and Path("data/log/card.json").is_file()


def test_prepare_passes_every_option_on(cli: Cli) -> None:
    rows = [f"{u}::{i}::{r}::{100 + u + i}" for u in range(9) for i, r in ((1, 5), (2, 1), (3, 4))]
    Path("log.dat").write_text("\n".join([*rows, *rows[:1]]) + "\n")
    Path("side.csv").write_text("nr,label\n1,Érable\n3,Bouleau\n", encoding="latin-1")
    found = cli(
        *("prepare", "log.dat", "--delimiter", "::", "--no-header"),
        *("--user", 1, "--item", 2, "--rating", 3, "--time", 4, "--min-rating", 3),
        *("--items", "side.csv", "--item-id", "nr", "--title", "label"),
        *("--items-encoding", "latin-1", "--min-user", 2, "--min-item", 2, "--drop-duplicates"),
        *("--since", 90, "--until", 500, "--name", "small", "--out", "d"),
    )
    assert found.code == 0, found.err
    card = json.loads(Path("d/card.json").read_text())
    assert card["name"] == "small" and card["counts"]["interactions"] == 18
    from nextup import Dataset

    assert Dataset.load("d").catalog.titles == ["Érable", "Bouleau"]


def test_fit_shows_validation_and_the_next_command(cli: Cli, made: Path) -> None:
    found = cli("fit", made / "data/shop", "--model", "mc1", "--run", "r")
    assert found.code == 0
    assert "r: validation" in found.out and "NDCG" in found.out
    assert "protocol: full ranking, seen items excluded, ties mean" in found.err
    assert "next: nextup evaluate r" in found.err
    assert "recipe" not in found.err  # it has none


def test_fit_without_a_recipe_says_which_there_are(cli: Cli, made: Path) -> None:
    found = cli("fit", made / "data/shop", *SMALL, "--run", "r")
    assert "defaults of sasrec, or as given; recipes: " in found.err and "sasrec/paper" in found.err
    found = cli("fit", made / "data/shop", "--recipe", "sasrec/paper", *SMALL, "--run", "s")
    assert "defaults of" not in found.err


def test_fit_takes_recipe_settings_and_protocol(cli: Cli, made: Path) -> None:
    found = cli(
        *("fit", made / "data/shop", "--recipe", "sasrec/paper", *SMALL, "--run", "r"),
        *(
            "--seen",
            "included",
            "--ties",
            "low_id",
            "--cutoffs",
            "3,10",
            "--seed",
            5,
            "--set",
            "metric=HR@3",
        ),
    )
    assert found.code == 0, found.err
    config = json.loads(Path("r/config.json").read_text())
    assert (config["model"], config["recipe"], config["seed"]) == ("sasrec", "sasrec/paper", 5)
    assert config["model_config"]["width"] == 8 and config["train_config"]["epochs"] == 1
    assert config["protocol"]["seen"] == "included" and config["protocol"]["cutoffs"] == [3, 10]
    assert "@3" in found.out


def test_a_student_is_chosen_and_taught_in_one_command(cli: Cli, made: Path) -> None:
    student = '{"model": "gru4rec", "settings": {"width": 8, "hidden": 8, "layers": 1}}'
    teacher = '{"model": "bert4rec", "settings": {"width": 8, "inner": 8, "layers": 1, "heads": 1}}'
    settings = [f"student={student}", f'teachers=[{teacher}, "mc1"]', "epochs=1"]
    words = [word for setting in settings for word in ("--set", setting)]
    found = cli("fit", made / "data/shop", "--model", "ssi", *words, "--run", "r", "--kept", "kept")
    assert found.code == 0, found.err
    about = json.loads(Path("r/recommender/recommender.json").read_text())["about"]
    assert list(about["facts"]["stages"]) == ["teacher bert4rec"]
    assert len(list(Path("kept").glob("*.safetensors"))) == 1
    log = [json.loads(line) for line in Path("r/log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in log][-1] == "student gru4rec"
    assert {"weight.bert4rec", "weight.mc1"} <= set(log[-1])
    assert cli("recommend", "r", "boots-4", "-k", "3", "--json").code == 0


def test_a_run_is_refused_then_replaced_then_resumed(cli: Cli, made: Path) -> None:
    fit = ("fit", made / "data/shop", "--run", "r", *SMALL)
    assert cli(*fit).code == 0
    weights = Path("r/recommender/weights.safetensors").read_bytes()
    again = cli(*fit)
    assert again.code == 2 and "--overwrite" in again.err
    assert cli(*fit, "--resume").code == 0
    assert cli(*fit, "--overwrite").code == 0
    assert Path("r/recommender/weights.safetensors").read_bytes() == weights


def test_evaluate_names_protocol_and_next_command(cli: Cli, made: Path) -> None:
    shutil.copytree(made / "runs/pop", "r")
    found = cli("evaluate", "r", made / "data/shop", "--seen", "included", "--part", "valid")
    assert found.code == 0
    assert "r: valid, 120 cases" in found.out
    assert "protocol: full ranking, seen items included, ties mean" in found.err
    assert "next: nextup recommend r" in found.err
    sampled = cli(
        *("evaluate", "r", made / "data/shop", "--candidates", "sampled"),
        *("--negatives", 9, "--negatives-seed", 3),
    )
    assert sampled.code == 0, sampled.err
    assert "9 sampled negatives (seed 3)" in sampled.err and "expected HR" in sampled.out


def test_evaluate_changes_only_what_is_named_of_the_protocol(cli: Cli, made: Path) -> None:
    fit = ("fit", made / "data/shop", "--model", "pop", "--run", "r", "--seen", "included")
    assert cli(*fit, "--ties", "low_id", "--cutoffs", "3,7").code == 0
    found = cli("evaluate", "r", "--cutoffs", "10")
    assert "protocol: full ranking, seen items included, ties low_id" in found.err
    assert "@10" in found.out and "@7" not in found.out
    assert "replaces" not in found.err
    other = cli("evaluate", "r", "--seen", "excluded")
    assert "protocol: full ranking, seen items excluded, ties low_id" in other.err
    assert "@3" in other.out and "@7" in other.out
    assert (
        "replaces what was measured by another protocol: full ranking, seen items in" in other.err
    )


def test_consistency_prints_a_table_or_json_and_keeps_the_means(cli: Cli, made: Path) -> None:
    shutil.copytree(made / "runs/pop", "r")
    found = cli("consistency", "r", made / "data/shop", "--part", "valid", "--seed", 2)
    assert found.code == 0, found.err
    rows = [line for line in found.out.splitlines() if line.startswith(("wrong click", "swap"))]
    assert len(rows) == 2 and all(row.count("1.0000") == 2 for row in rows)
    assert "accidents of seed 2; full ranking, seen items excluded" in found.err
    kept = json.loads(Path("r/consistency-valid.json").read_text())
    printed = cli("consistency", "r", "--part", "valid", "--seed", 2, "--json")
    assert json.loads(printed.out) == kept and kept["accidents"]["forget"]["RBO@10"] == [1.0, 0.0]
    some = cli("consistency", "r", "--accidents", "swap,forget", "-k", 5, "--json")
    assert list(json.loads(some.out)["accidents"]) == ["swap", "forget"]
    wrong = cli("consistency", "r", "--accidents", "swop")
    assert wrong.code == 2 and "did you mean `swap`" in wrong.err


def test_negatives_without_sampled_candidates_are_refused(cli: Cli, made: Path) -> None:
    run, sampled = made / "runs/pop", ("--candidates", "sampled")
    for option in ("--negatives", "--negatives-seed"):
        found = cli("evaluate", run, option, 5)
        assert found.code == 2 and f"{option} speaks of sampled candidates" in found.err
    assert (
        cli("fit", made / "data/shop", "-m", "pop", "-r", "r", *sampled, "--negatives", 9).code == 0
    )
    assert "5 sampled negatives (seed 0)" in cli("evaluate", "r", "--negatives", 5).err


def test_what_comes_next_is_possible(cli: Cli, made: Path) -> None:
    found = cli("fit", made / "data/shop", "-m", "pop", "-r", "r", "--learn-from", "all")
    assert "next: nextup recommend r ITEM ITEM" in found.err and "evaluate" not in found.err


def test_compare_tests_runs_against_the_baseline(cli: Cli, made: Path) -> None:
    runs = made / "runs/pop", made / "runs/sasrec"
    found = cli("compare", *runs, "--baseline", "sasrec", "--metrics", "HR@10,NDCG@10")
    assert found.code == 0, found.err
    assert "McNemar" in found.out and "HR@5" not in found.out
    assert "against sasrec" in found.err
    assert "pop" in cli("compare", *runs).out


def test_compare_keeps_runs_of_one_name_apart(cli: Cli, made: Path) -> None:
    for place in ("a", "b"):
        shutil.copytree(made / "runs/pop", f"{place}/pop")
    assert "b/pop" in cli("compare", "a/pop", "b/pop").out
    twice = cli("compare", "a/pop", "a/pop")
    assert twice.code == 2 and "twice" in twice.err


def test_recommend_takes_ids_and_titles_and_reports_the_unknown(cli: Cli, made: Path) -> None:
    found = cli("recommend", made / "runs/sasrec", "tents-1", "gas stove", "lawnmower", "-k", 4)
    assert found.code == 0, found.err
    assert "Alder two-person tent" in found.err and "after stoves-1" in found.err
    assert "`lawnmower` is no item here" in found.err
    assert found.out.count("\n") >= 6 and "title" in found.out
    assert "next: nextup similar" in found.err


def test_recommend_without_a_history_gives_the_popular_and_says_so(cli: Cli, made: Path) -> None:
    found = cli("recommend", made / "runs/sasrec")
    assert found.code == 0 and "most popular" in found.err


def test_recommend_leaves_out_and_chooses_as_json(cli: Cli, made: Path) -> None:
    run = made / "runs/pop"
    plain = json.loads(cli("recommend", run, "tents-1", "-k", 3, "--json").out)
    first = plain["items"][0]
    without = json.loads(cli("recommend", run, "tents-1", "--exclude", first, "--json").out)
    assert first not in without["items"]
    Path("only.txt").write_text("tents-1\nboots-1\n")
    chosen = cli("recommend", run, "tents-1", "--only", "@only.txt", "-k", 5, "--json")
    assert json.loads(chosen.out)["items"] == ["boots-1"]
    seen = cli("recommend", run, "tents-1", "--only", "tents-1", "--include-seen", "--json")
    assert json.loads(seen.out)["items"] == ["tents-1"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_recommend_answers_whole_files(cli: Cli, made: Path, ending: str) -> None:
    output = Path(f"lists.{ending}")
    found = cli("recommend", made / "runs/pop", "-i", made / "log.csv", "-o", output, "-k", 3)
    assert found.code == 0, found.err
    assert "360 recommendations for 120 users" in found.err and output.stat().st_size > 0
    if ending == "csv":
        with output.open(encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == 360
    refused = cli("recommend", made / "runs/pop", "-i", made / "log.csv", "-o", output)
    assert refused.code == 2 and "--overwrite" in refused.err


def test_histories_of_a_file_are_read_as_told(cli: Cli, made: Path) -> None:
    Path("new.txt").write_text("a;tents-1\nb;boots-1\nb;\n", encoding="latin-1")
    found = cli(
        *("recommend", made / "runs/sasrec", "-i", "new.txt", "-o", "lists.csv", "-k", 2),
        *("--delimiter", ";", "--no-header", "--user", 1, "--item", 2, "--time", "none"),
        *("--encoding", "latin-1", "--format", "csv", "--text-ids", "--skip-bad-rows"),
    )
    assert found.code == 0, found.err
    assert "1 of 3 rows left out: absent item id" in found.err
    assert "fewer than 3 items" not in found.err
    with Path("lists.csv").open(encoding="utf-8") as file:
        assert [row["user"] for row in csv.DictReader(file)] == ["a", "a", "b", "b"]


def test_a_small_catalogue_is_no_error_where_no_number_was_asked_for(cli: Cli) -> None:
    Path("log.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u in "ab" for i in "wxyz"))
    assert cli("prepare", "log.csv", "--out", "d").code == 0
    assert cli("fit", "d", "-m", "pop", "-r", "pop").code == 0
    assert cli("fit", "d", "-r", "sasrec", *SMALL).code == 0
    found = cli("recommend", "sasrec", "x", "--include-seen")
    assert found.code == 0 and found.out.count("\n") >= 5, found.err
    assert cli("similar", "sasrec", "x").code == 0
    refused = cli("recommend", "sasrec", "x", "-k", 10)
    assert refused.code == 2 and "the catalogue holds 4 items" in refused.err
    # POP knows of no similar items, so they are not what comes next.
    assert "similar" not in cli("recommend", "pop", "x").err


def test_similar_by_title_and_by_id(cli: Cli, made: Path) -> None:
    by_title = cli("similar", made / "runs/sasrec", "two-person tent", "-k", 3, "--json")
    by_id = cli("similar", made / "runs/sasrec", "tents-1", "-k", 3, "--json")
    assert by_title.code == 0 and by_title.out == by_id.out
    assert "tents-1" not in json.loads(by_id.out)["items"]


def test_models_lists_models_and_explains_settings(cli: Cli) -> None:
    listed = cli("models")
    assert all(name in listed.out for name in ("pop", "mc1", "sasrec", "gru4rec"))
    one = cli("models", "sasrec")
    assert one.code == 0
    for word in ("dropout", "0.5", "softmax | sampled_softmax", "epochs", "sasrec/paper"):
        assert word in one.out
    counting = cli("models", "pop")
    assert counting.code == 0 and "epochs" not in counting.out


def test_doctor_finds_a_sound_installation(cli: Cli) -> None:
    found = cli("doctor")
    assert found.code == 0
    for word in ("torch", "threads", "CUDA", "pandas", "data/", "FAIL"):
        assert (word in found.out) is (word != "FAIL")


def test_doctor_says_what_to_do_about_a_broken_package(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nextup.doctor

    monkeypatch.setattr(nextup.doctor, "NEEDED", ("numpy", "no-such-package"))
    found = cli("doctor")
    assert found.code == 1 and "FAIL" in found.out
    assert "pip install --force-reinstall no-such-package" in found.err
