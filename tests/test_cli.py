"""The command line, with files that mean no good."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import cli
from lrp_jax.cli import commands, doctor, files as read_files

MODEL = """
import jax, jax.numpy as jnp

def apply(params, x):
    x = x.reshape(x.shape[0], -1)
    return jax.nn.relu(x @ params["a"]["kernel"]) @ params["b"]["kernel"]

def ready():
    return apply, {"a": {"kernel": jnp.ones((12, 4))}, "b": {"kernel": jnp.ones((4, 3))}}

def half_ready():
    return apply

def unreadable():
    return open("/nowhere/weights")

def stopped():
    raise SystemExit("no")

def numbers():
    return (lambda params, x: apply(params, x)[:, 0]), ready()[1]

def words():
    table = {"embed": jnp.arange(12.0).reshape(6, 2), "head": jnp.eye(2)}
    return (lambda params, ids: params["embed"][ids].sum(1) @ params["head"]), table

def dense():
    return (lambda params, x: x @ params["w"]), {"w": jnp.ones((3, 5))}
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
    heatmap = pytest.importorskip("matplotlib.image").imread(folder / "out" / "00000.png")
    assert heatmap.shape[:2] == (256, 256)
    colours = lrp.plot.rgb(np.load("out/relevance.npy")[0])
    np.testing.assert_array_equal(heatmap[64::128, 64::128, :3] * 255, colours)
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 3
    assert told.err == "written: relevance.npy and 3 heatmaps in out\n"


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
    assert "morf: low is good" in lines.pop()
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


def test_every_preset_has_its_name_here() -> None:
    found = vars(lrp.composites).items()
    public = {n for n, value in found if inspect.isfunction(value) and n[0] != "_"}
    assert public - {"as_composite"} == set(commands.COMPOSITES)


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
        (["plan", "cli_net:missing", "x.npy"], "no function 'missing'."),
        (["plan", "cli_net:redy", "x.npy"], "did you mean ready?"),
        (["plan", "cli_net:ready", "x.npy", "--composite=ZPlu"], "did you mean ZPlus? Known are"),
        (["plan", "cli_net:ready", "x.npy", "--composite=Gamma(gama=1)"], "Gamma takes gamma, "),
        (["plan", "cli_net:half_ready", "x.npy"], "the pair"),
        (["plan", "cli_net:apply", "x.npy"], "needs parameters: give --checkpoint"),
        (["plan", "cli_net:ready", "cli_net.py"], "is none of .npy"),
        (["plan", "cli_net:ready", "x.csv"], "there is no file x.csv"),
        (["plan", "cli_net:unreadable", "x.npy"], "unreadable() failed: FileNotFoundError"),
        (["plan", "cli_net:stopped", "x.npy"], "stopped() failed: SystemExit: no"),
        (
            ["plan", "cli_net:apply", "x.npy", "--checkpoint", "cli_net.py"],
            "is none of .npy, .npz, .safetensors. Pickles",
        ),
        (["plan", "cli_net:ready", "x.npy", "--limit", "nan"], "--limit"),
        (["plan", "cli_net:ready", "x.npy", "--size", "0", "1"], "--size"),
        (["plan", "cli_net:ready", "x.npy", "--size", "99999", "99999"], "--size"),
        (["plan", "cli_net:ready", "x.npy", "--std", "0"], "--std"),
        (["plan", "cli_net:ready", "x.npy", "--mean", "inf"], "--mean"),
        (["evaluate", "cli_net:ready", "x.npy", "--patch", "0"], "--patch is at least 1"),
        (["evaluate", "cli_net:ready", "x.npy", "--steps", "0"], "--steps is at least 1"),
        (["evaluate", "cli_net:ready", "x.npy", "--target", "9"], "target 9 is out of range"),
        (["explain", "cli_net:ready", "x.npy", "--out=o", "--target", "3"], "target 3 is out of"),
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


def test_token_ids_are_explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "ids.npy", np.array([[1, 5, 0]]))
    run("explain", "cli_net:words", "ids.npy", "--out", "out", "--target", "1")
    np.testing.assert_allclose(np.load("out/relevance.npy"), [[3, 11, 1]], rtol=1e-5)
    np.save(folder / "pixels.npy", np.zeros((1, 2, 2, 3), np.uint8))
    message = refused(capsys, "explain", "cli_net:ready", "pixels.npy", "--out", "out")
    assert "cast counts and images with x.astype" in message
    np.save(folder / "words.npy", np.array(["a"]))
    assert "floating-point" in refused(capsys, "plan", "cli_net:ready", "words.npy")


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


def test_files_that_mean_no_good_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one or two lines and no traceback."""
    (folder / "folder").mkdir()
    (folder / "folder.npy").mkdir()
    safetensors = [".safetensors"] if importlib.util.find_spec("safetensors") else []
    pictures = [".png", ".jpg"] if importlib.util.find_spec("PIL") else []
    for suffix in [".npy", ".npz", *safetensors, *pictures]:
        (folder / f"empty{suffix}").touch()
        (folder / f"text{suffix}").write_text("this is text" * 40)
        (folder / f"zeros{suffix}").write_bytes(bytes(200))
    checkpoint = ["plan", "cli_net:apply", "x.npy", "--checkpoint"]
    for name in sorted(p.name for p in folder.iterdir() if p.suffix not in (".py", "")):
        if name in ("x.npy", "net.npz"):
            continue
        calls = [["plan", "cli_net:ready", name]]
        if not name.endswith((".png", ".jpg")):
            calls.append([*checkpoint, name])
        for call in calls:
            message = refused(capsys, *call)
            assert f" {name} " in message
            assert message.count("\n") == 1
            assert "Traceback" not in message
    for name in ("folder", "folder.npy"):
        assert f"{name} is a folder: name the files in it" in refused(capsys, *checkpoint, name)
    assert "empty.npz is empty" in refused(capsys, *checkpoint, "empty.npz")


def test_broken_archives_and_pictures_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez_compressed(folder / "small.npz", **dict(np.load("net.npz")))
    files = [folder / "net.npz", folder / "small.npz"]
    if importlib.util.find_spec("PIL"):
        image = importlib.import_module("PIL.Image")
        noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
        for name in ("noise.png", "noise.jpg"):
            image.fromarray(noise).save(folder / name)
            files.append(folder / name)
    for file in files:
        whole = file.read_bytes()
        for cut in (9, len(whole) // 2, len(whole) - 30):
            file.write_bytes(whole[:cut])
            assert file.name in refused(capsys, "plan", "cli_net:ready", file.name)
        for start in range(20, len(whole) - 40, max(len(whole) // 12, 1)):
            file.write_bytes(whole[:start] + b"\xff" * 20 + whole[start + 20 :])
            with contextlib.suppress(SystemExit):  # a picture may look broken instead
                cli.main(["plan", "cli_net:ready", file.name])
            assert "Traceback" not in capsys.readouterr().err


def test_names_and_shapes_of_wrong_parameters_are_listed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(np.load("net.npz"))
    np.savez(folder / "names.npz", **{f"{n}s": a for n, a in arrays.items()})
    np.savez(folder / "shapes.npz", **{n: a[1:] for n, a in arrays.items()})
    many = {f"layer{i}/kernel": np.ones(2, np.float32) for i in range(40)}
    np.savez(folder / "many.npz", **many)
    call = ["plan", "cli_net:apply", "x.npy", "--checkpoint"]
    message = refused(capsys, *call, "names.npz")
    assert "KeyError: 'kernel'" in message
    assert "cli_net.py:6" in message  # where in the model
    assert "a/kernels (12, 4), b/kernels (4, 3)" in message
    assert "shape (3, 2, 2, 3)" in message
    assert "a/kernel (11, 4)" in refused(capsys, *call, "shapes.npz")
    assert "(40 in all)" in refused(capsys, *call, "many.npz")
    assert message.count("\n") == 2
    np.save(folder / "narrow.npy", np.ones((3, 5), np.float32))
    own = refused(capsys, "explain", "cli_net:ready", "x.npy", "--out=o", "--target", "3")
    assert "the parameters are" not in own  # the model has done nothing wrong
    message = refused(capsys, "plan", "cli_net:ready", "narrow.npy")
    assert "shape (3, 5)" in message
    with pytest.raises(cli.InputError) as shown:
        cli.main(["plan", "cli_net:ready", "narrow.npy", "--traceback"])
    assert isinstance(shown.value.__cause__, TypeError)


def test_numbers_that_are_none_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.load("x.npy")
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        x[1, 0, 0, 0] = value
        np.save(folder / f"{name}.npy", x)
        message = refused(capsys, "plan", "cli_net:ready", f"{name}.npy")
        assert f"{name}.npy has NaN or infinite numbers in example 1 (1 of 3)" in message
    arrays = dict(np.load("net.npz"))
    arrays["b/kernel"][0, 0] = np.nan
    np.savez(folder / "nan.npz", **arrays)
    message = refused(capsys, "plan", "cli_net:apply", "x.npy", "--checkpoint", "nan.npz")
    assert "nan.npz has NaN in b/kernel" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:", "cannot be imported: SyntaxError: invalid syntax"),
        ("import json\nraise RuntimeError('no weights')", "RuntimeError: no weights"),
        ("import not_there", "No module named 'not_there'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_modules_that_cannot_be_imported(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    name = f"cli_broken_{abs(hash(text))}"
    (folder / f"{name}.py").write_text(text)
    message = refused(capsys, "plan", f"{name}:f", "x.npy")
    assert words in message
    assert f"{name}.py:" in message


def test_where_nothing_can_be_written_nothing_is_computed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "value_and_relevance", lambda *_: lambda *_, **__: 1 / 0)
    (folder / "file").touch()
    call = ["explain", "cli_net:ready", "x.npy", "--out"]
    assert "--out file is a file" in refused(capsys, *call, "file")
    assert "cannot be written (Not a directory)" in refused(capsys, *call, "file/out")
    (folder / "taken" / "relevance.npy").mkdir(parents=True)
    assert "relevance.npy is a folder" in refused(capsys, *call, "taken")
    if os.geteuid():
        (folder / "locked").mkdir(mode=0o500)
        assert "cannot be written (Permission denied)" in refused(capsys, *call, "locked")


def test_no_half_written_picture_is_left(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pytest.importorskip("matplotlib.image")

    def full(path: Any, *_: Any, **__: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image, "imsave", full)
    message = refused(capsys, "explain", "cli_net:ready", "x.npy", "--out", "out")
    assert "00000.png cannot be written: [Errno 28] No space left" in message
    assert os.listdir(folder / "out") == ["relevance.npy"]


def test_pictures_of_16_bits_are_scaled_to_their_range(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    deep = np.array([[0, 65535], [13107, 32768]], np.uint16)
    image.fromarray(deep).save(folder / "deep.png")
    image.fromarray((deep // 257).astype(np.uint8)).save(folder / "flat.png")
    options = commands._parser().parse_args(["plan", "cli_net:ready", "deep.png"])
    found = read_files._image(folder / "deep.png", options)
    np.testing.assert_allclose(found[..., 0], deep / 65535, rtol=1e-6)
    np.testing.assert_allclose(found, read_files._image(folder / "flat.png", options), atol=1 / 255)
    options.size = [1, 1]
    np.testing.assert_allclose(
        read_files._image(folder / "deep.png", options), deep.mean() / 65535, 0.02
    )


def test_pictures_are_turned_as_the_camera_was_held(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    upright = np.zeros((4, 2, 3), np.uint8)
    upright[0] = 255
    exif = image.Exif()
    exif[0x0112] = 6  # stored lying: to be turned by 90 degrees clockwise
    image.fromarray(np.rot90(upright)).save(folder / "lying.png", exif=exif)
    options = commands._parser().parse_args(["plan", "cli_net:ready", "lying.png"])
    np.testing.assert_array_equal(read_files._image(folder / "lying.png", options), upright / 255)


def test_one_number_for_each_example_and_dense_outputs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("explain", "cli_net:numbers", "x.npy", "--out", "out")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["output"] * 3
    assert np.load("out/relevance.npy").any((1, 2, 3)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        run("evaluate", "cli_net:dense", "x.npy", "--steps", "2")
    (line,) = capsys.readouterr().err.splitlines()  # once, without the line of code
    assert line.startswith("python -m lrp_jax: warning: target=None explains the largest class")


def test_the_doctor_finds_everything_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"jax {jax.__version__}" in out
    assert "device 0: cpu" in out
    assert "4 rules give the known numbers" in out


def test_the_doctor_names_a_wrong_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(doctor.KNOWN, lrp.ZPlus(), (0.2, 0.0, 6.7))
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    said = capsys.readouterr().err
    assert "ZPlus() gives" in said
    assert "6.7]" in said
