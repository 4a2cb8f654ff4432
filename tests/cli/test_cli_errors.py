"""What goes wrong is said on one line, with the remedy, and never as a traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nextup.cli.console import parse_settings
from nextup.errors import ConfigError

from .command_line import SMALL, Cli


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prepare", "nothing.csv"], "nothing.csv"),
        (["prepare", "LOG", "--user", "usr"], "usr"),
        (["fit", "nowhere"], "make it with `nextup prepare`"),
        (["fit", "ssi", "--set", "student=gru4rec"], "`ssi` is a model; the dataset comes first"),
        (["fit", "DATA", "--set", "droput=0.2"], "unknown key `droput`; did you mean `dropout`?"),
        (["fit", "DATA", "--set", "dropout"], "write it as key=value"),
        (["fit", "DATA", "--set", "a=1", "--set", "a=2"], "set twice"),
        (["fit", "DATA", "--set", "dropout=2"], "`dropout`"),
        (["fit", "DATA", "-m", "pop", "--set", "epochs=3"], "pop: learns by counting, so `epochs`"),
        (["fit", "DATA", "--seed", "-1"], "seed: -1 is out of range"),
        (["prepare", "nothing.csv", "--out", "DATA"], "exists already"),
        (["fit", "DATA", "--set", "width=wide"], "`width`"),
        (["fit", "DATA", "--model", "sasrek"], "did you mean `sasrec`?"),
        (["fit", "DATA", "--recipe", "papr"], "did you mean `paper`?"),
        (["fit", "DATA", "--split", "random"], "split `random`"),
        (["fit", "DATA", "--seen", "maybe"], "protocol: `seen`"),
        (["fit", "DATA", "--cutoffs", "ten"], "protocol: `cutoffs"),
        (["fit", "DATA", "--device", "tpu"], "device"),
        (["fit", "DATA", "--learn-from", "test"], "learn_from"),
        (["evaluate", "nowhere"], "nowhere"),
        (["evaluate", "POP", "--part", "train"], "part"),
        (
            ["evaluate", "POP", "--candidates", "sampled", "--negatives-seed", "9" * 20],
            "protocol: `seed`",
        ),
        (["consistency", "POP", "--seed", "-1"], "seed: -1 is out of range"),
        (["fit", "DATA", "--recipe", "mine.toml"], "say which model it is for with --model"),
        (["fit", "DATA", "--model", "pop", "--recipe", "mine.toml"], "mine.toml: cannot be read"),
        (["compare", "POP", "nowhere"], "nowhere: there is no such run"),
        (["compare", "POP", "--metrics", "NDGC@10"], "did you mean `NDCG@10`?"),
        (["compare", "POP", "--baseline", "popp"], "did you mean `pop`?"),
        (["recommend", "nowhere", "1"], "nowhere"),
        (["recommend", "POP", "-k", "0"], "k is 0"),
        (["recommend", "POP", "--input", "LOG"], "--output is missing"),
        (["recommend", "POP", "--format", "csv"], "from --format to --overwrite are for --input"),
        (["recommend", "POP", "1", "--device", "gpu"], "`gpu` is not one of auto, cpu, cuda"),
        (
            ["recommend", "POP", "--json", "--input", "x.csv", "--output", "y.csv"],
            "--json is for one history; name --output lists.jsonl instead",
        ),
        (["recommend", "POP", "--user", "7"], "name columns of --input; for one user give the"),
        (["recommend", "POP", "x", "--input", "LOG", "--output", "o.csv"], "not both"),
        (["recommend", "POP", "--input", "LOG", "--output", "o.xls"], "o.xls"),
        (["recommend", "POP", "--only", "@missing.txt"], "missing.txt: No such file"),
        (["similar", "POP", "tents-1"], "no item vectors"),
        (["similar", "SASREC", "two-persn tent"], "is no item here"),
        (["models", "grurec"], "did you mean `gru4rec`?"),
    ],
)
def test_one_line_with_the_remedy(cli: Cli, made: Path, arguments: list[str], says: str) -> None:
    places = {
        "LOG": made / "log.csv",
        "DATA": made / "data/shop",
        "POP": made / "runs/pop",
        "SASREC": made / "runs/sasrec",
    }
    found = cli(*(places.get(argument, argument) for argument in arguments))
    assert found.code == 2
    lines = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and says in lines[0]
    assert "Traceback" not in found.err + found.out
    assert not [path for path in Path.cwd().iterdir() if path.name != "runs"], "something is left"
    assert not list(Path.cwd().glob("runs/*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prepair"], "prepare"),
        (["fit"], "dataset"),
        (["fit", "d", "--modle", "x"], "--model"),
        (["recommend", "r", "-k", "many"], "-k"),
    ],
)
def test_wrong_words_are_usage_errors(cli: Cli, arguments: list[str], says: str) -> None:
    found = cli(*arguments)
    assert found.code == 2 and says in found.err and "Traceback" not in found.err


def test_trouble_with_the_disk_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import nextup.data.prepare

    def fails(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "big.npy")

    monkeypatch.setattr(nextup.data.prepare, "read", fails)
    found = cli("prepare", "log.csv")
    assert found.code == 2
    assert found.err.startswith("error: big.npy: No space left on device; free some disk space")


def test_a_defect_keeps_its_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import nextup.data.prepare

    def fails(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(nextup.data.prepare, "read", fails)
    with pytest.raises(ZeroDivisionError):
        cli("prepare", "log.csv")


def test_ctrl_c_says_how_to_go_on(cli: Cli, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nextup.train.fit

    def stopped(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nextup.train.fit, "fit", stopped)
    found = cli("fit", "my data", "--set", "epochs=9", "--overwrite")
    assert found.code == 130
    assert "go on with: nextup fit 'my data' --set epochs=9 --resume" in found.err


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_fit_really_goes_on(by: signal.Signals, cli: Cli, made: Path) -> None:
    small = [*SMALL[:4], "--set", "epochs=100000", "--set", "patience=0"]
    fit = [sys.executable, "-m", "nextup", "fit", str(made / "data/shop"), "--run", "r", *small]
    process = subprocess.Popen(fit, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not Path("r/log.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(by)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + by
    assert "go on with: nextup fit" in errors and "Traceback" not in errors


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_terminated_prepare_leaves_nothing(
    cli: Cli, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nextup.data.folder

    def end(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(nextup.data.folder, "_write_document", end)
    found = cli("prepare", made / "log.csv", "--out", "d")
    assert found.code == 128 + signal.SIGTERM
    assert "stopped; nothing half-written is left" in found.err
    assert not list(Path.cwd().iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_reader_of_the_output_may_leave() -> None:
    done = subprocess.run(
        f"{sys.executable} -m nextup models sasrec | head -1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert "sasrec" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1_000", 1000),
        ("true", True),
        ("null", None),
        ("original", "original"),
        ('"32"', "32"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_values_are_read_as_scalars(text: str, value: object) -> None:
    assert parse_settings([f"key={text}"]) == {"key": value}


def test_settings_need_a_key() -> None:
    with pytest.raises(ConfigError, match="key=value"):
        parse_settings(["=3"])
