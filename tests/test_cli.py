"""The command line, with files that mean no good."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import cli

MODEL = """
import jax, jax.numpy as jnp

def apply(params, x):
    x = x.reshape(x.shape[0], -1)
    return jax.nn.relu(x @ params["a"]["kernel"]) @ params["b"]["kernel"]

def ready():
    return apply, {"a": {"kernel": jnp.ones((12, 4))}, "b": {"kernel": jnp.ones((4, 3))}}

def half_ready():
    return apply
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(0)
    (tmp_path / "cli_net.py").write_text(MODEL)
    np.savez(
        tmp_path / "net.npz",
        **{
            "a/kernel": random.normal(size=(12, 4)).astype(np.float32),
            "b/kernel": random.normal(size=(4, 3)).astype(np.float32),
        },
    )
    np.save(tmp_path / "x.npy", random.normal(size=(3, 2, 2, 3)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cli_net", raising=False)
    return tmp_path


def run(*words: str) -> None:
    assert cli.main(words) == 0


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_plan_prints_the_table_of_the_library(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("plan", "cli_net:apply", "x.npy", "--checkpoint", "net.npz", "--composite", "Gamma(0.5)")
    import cli_net  # type: ignore[import-not-found]

    params = cli.tree(cli.read_arrays(folder / "net.npz"))
    expected = lrp.plan(cli_net.apply, lrp.Gamma(0.5))(params, np.load("x.npy")[:1])
    assert capsys.readouterr().out == f"{expected}\n"
    run("plan", "cli_net:apply", "x.npy", "--checkpoint=net.npz", "--composite=Zero", "--json")
    assert len(json.loads(capsys.readouterr().out)["layers"]) == 3


def test_explain_writes_what_relevance_returns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", "cli_net:apply", "x.npy", "--checkpoint", "net.npz", "--out", "out"]
    run(*command, "--composite", "Epsilon(1e-3)", "--target", "0", "2", "1", "--batch", "2")
    import cli_net

    x, params = np.load("x.npy"), cli.tree(cli.read_arrays(folder / "net.npz"))
    expected = lrp.relevance(cli_net.apply, lrp.Epsilon(1e-3))(
        params, x, target=jnp.array([0, 2, 1])
    )
    np.testing.assert_allclose(np.load("out/relevance.npy"), expected, rtol=1e-5, atol=1e-6)
    files = {file.name for file in (folder / "out").iterdir()}
    assert files == {"relevance.npy", "00000.png", "00001.png", "00002.png"}
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_explain_reads_images_and_names_heatmaps_after_them(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog .x"):
        image.fromarray(np.full((8, 6, 3), 200, np.uint8)).save(folder / f"{name}.png")
    images = ["cat.png", "dog .x.png", "--size", "2", "2", "--mean", "0.5", "--std", "0.25"]
    run("explain", "cli_net:ready", *images, "--out", "new/out")
    assert {file.name for file in (folder / "new/out").glob("*.png")} == {
        "00000-cat.png",
        "00001-dog__x.png",
    }
    # 12 equal inputs make 12 logits of 4 * 12 * (200 / 255 - 0.5) / 0.25 together
    total = np.load("new/out/relevance.npy").sum((1, 2, 3))
    np.testing.assert_allclose(total, 4 * 12 * (200 / 255 - 0.5) / 0.25, rtol=1e-5)


def test_evaluate_ranks_an_explanation_before_a_random_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "cli_net:apply", "x.npy", "--checkpoint", "net.npz", "--steps", "4"]
    run(*command, "--composite", "Zero", "--composite", "EpsilonPlus")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "method",
        "Zero",
        "EpsilonPlus",
        "gradient x input",
        "random",
    ]
    morf = {line.split("  ")[0]: float(line.split()[-2]) for line in lines[1:]}
    assert morf["Zero"] < morf["random"]


def test_module_runs_as_a_command() -> None:
    command = [sys.executable, "-m", "lrp_jax", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "plan | explain | evaluate" in done.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("EpsilonPlus", lrp.EpsilonPlus()),
        ("EpsilonGammaBox(low=-3, high=3.5)", lrp.EpsilonGammaBox(low=-3, high=3.5)),
        ("AttnLRP(Gamma(0.5), conv=Zero())", lrp.AttnLRP(lrp.Gamma(0.5), conv=lrp.Zero())),
        ("guided_backprop", lrp.composites.guided_backprop()),
    ],
)
def test_composites_are_read_from_text(text: str, expected: Any) -> None:
    assert cli.composite_from(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Gamma(().__class__)",
        "Composite([])",
        "EpsilonPlus(**{})",
        "Gamma(gamma=-1)",
        "EpsilonGammaBox",
        "as_composite(1)",
        "Gamma(",
    ],
)
def test_text_that_is_no_composite_is_refused(text: str) -> None:
    with pytest.raises(cli.InputError, match="--composite"):
        cli.composite_from(text)


def test_a_pickle_is_never_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(folder / "sprung"),)

    array = np.array([Trap()], dtype=object)
    np.save(folder / "trap.npy", array, allow_pickle=True)
    np.savez(folder / "trap.npz", w=array)
    for words in (["ready", "trap.npy"], ["apply", "x.npy", "--checkpoint", "trap.npz"]):
        assert "objects" in refused(capsys, "plan", f"cli_net:{words[0]}", *words[1:])
    assert not (folder / "sprung").exists()


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    declared = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, declared)
    return stream.getvalue()


def test_declared_sizes_are_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = header((1 << 40,)) + bytes(16)
    (folder / "huge.npy").write_bytes(huge)
    with zipfile.ZipFile(folder / "huge.npz", "w") as archive:
        archive.writestr("w.npy", huge)
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", header((5_000_000,)) + bytes(20_000_000))
    assert "promises" in refused(capsys, "plan", "cli_net:ready", "huge.npy")
    assert "promises" in refused(capsys, "plan", "cli_net:ready", "huge.npz")
    assert "--limit" in refused(capsys, "plan", "cli_net:ready", "bomb.npz", "--limit", "0.01")
    (folder / "broken.npz").write_bytes(b"PK\x03\x04" + bytes(8))
    assert "broken.npz" in refused(capsys, "plan", "cli_net:ready", "broken.npz")


def test_nothing_is_written_outside_of_the_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "relevance.npy").symlink_to(folder / "elsewhere.npy")
    message = refused(capsys, "explain", "cli_net:ready", "x.npy", "--out", "out")
    assert "outside" in message
    assert not (folder / "elsewhere.npy").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "cli_net", "x.npy"], "module:function"),
        (["plan", "no_such_net:apply", "x.npy"], "no module 'no_such_net'"),
        (["plan", "cli_net:missing", "x.npy"], "no function 'missing'"),
        (["plan", "cli_net:half_ready", "x.npy"], "the pair"),
        (["plan", "cli_net:apply", "x.npy"], "needs parameters: give --checkpoint"),
        (["plan", "cli_net:ready", "x.csv"], "is none of .npy"),
        (["plan", "cli_net:ready", "absent.npy"], "absent.npy"),
        (["plan", "cli_net:ready", "x.npy", "x.npy"], "either images or one"),
        (["plan", "cli_net:ready", "net.npz"], "none is called x"),
        (["plan", "cli_net:ready", "x.npy", "--composite=Zero", "--composite=ZPlus"], "takes one"),
        (["explain", "cli_net:ready", "x.npy", "--out=o", "--target", "1", "2"], "one or all"),
        (["explain", "cli_net:ready", "x.npy", "--out=o", "--batch=0"], "at least 1"),
    ],
)
def test_bad_arguments_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in refused(capsys, *words)


def test_integers_are_no_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "tokens.npy", np.arange(4))
    assert "floating-point" in refused(capsys, "plan", "cli_net:ready", "tokens.npy")


def test_images_are_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / "a.png")
    image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(folder / "b.png")
    (folder / "c.png").write_bytes(b"GIF89a")
    ready = ["plan", "cli_net:ready"]
    assert "--size" in refused(capsys, *ready, "a.png", "b.png")
    assert "cannot be read" in refused(capsys, *ready, "c.png")
    assert "--mean has 2" in refused(capsys, *ready, "a.png", "--mean", "0", "1")


def test_safetensors_are_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = {name.replace("/", "."): a for name, a in np.load("net.npz").items()}
    safetensors.save_file(arrays, folder / "net.safetensors")
    run("plan", "cli_net:apply", "x.npy", "--checkpoint", "net.npz")
    expected = capsys.readouterr().out
    run("plan", "cli_net:apply", "x.npy", "--checkpoint", "net.safetensors")
    assert capsys.readouterr().out == expected
    (folder / "cut.safetensors").write_bytes((folder / "net.safetensors").read_bytes()[:-8])
    command = ["plan", "cli_net:apply", "x.npy", "--checkpoint", "cut.safetensors"]
    assert "cut.safetensors" in refused(capsys, *command)


def test_a_name_inside_of_another_is_refused() -> None:
    for names in (["a", "a/b"], ["a/b", "a"]):
        with pytest.raises(cli.InputError, match="inside"):
            cli.tree({name: np.zeros(1) for name in names})
