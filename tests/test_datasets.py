"""Whole data sets: padding, order, files, and runs that are killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax.datasets as datasets
from lrp_jax.datasets import explain_dataset

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(10, 4, 4, 3)).astype(np.float32)
LABELS = np.arange(10)


def batches(size=4):
    return [(DATA[i : i + size], LABELS[i : i + size]) for i in range(0, 10, size)]


def fn(x, y):
    return {
        "attribution": 2 * x,
        "prediction": x.mean((1, 2)),
        "label": jax.nn.one_hot(y, 10, dtype=jnp.float32),
    }


def test_results_are_joined_and_the_last_batch_compiles_nothing():
    traces = []

    @jax.jit
    def counted(x, y):
        traces.append(1)
        return fn(x, y)

    result = explain_dataset(counted, batches(), progress=False)
    np.testing.assert_allclose(result["attribution"], 2 * DATA)
    np.testing.assert_array_equal(result["label"], np.eye(10))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("items", "call"),
    [
        ([DATA[:6], DATA[6:]], lambda x: 2 * x),
        ([{"x": DATA[:6]}, {"x": DATA[6:]}], lambda x: 2 * x),
        (iter([(DATA[:6],), (DATA[6:],)]), lambda x: 2 * x),
    ],
)
def test_forms_of_batches(items, call):
    np.testing.assert_allclose(explain_dataset(call, items, progress=False), 2 * DATA)


def test_a_batch_is_sent_before_the_result_of_the_last_is_awaited():
    events = []

    def load():
        for i in range(3):
            events.append(f"load {i}")
            yield np.full((2, 1), i)

    class Slow:
        def __init__(self, x):
            self.i, self.shape, self.dtype = int(x[0, 0]), x.shape, x.dtype

        def __array__(self, dtype=None, copy=None):
            events.append(f"await {self.i}")
            return np.zeros((2, 1))

    explain_dataset(Slow, load(), progress=False)
    assert events.index("load 1") < events.index("await 0")
    assert events.index("load 2") < events.index("await 1")


@pytest.mark.parametrize(
    ("items", "call", "words"),
    [
        ([], lambda x: x, "no batches"),
        ([DATA[:2], DATA], lambda x: x, "batch 1 has 10 examples but the first had 2"),
        ([(DATA, LABELS[:3])], lambda x, y: x, "same number"),
        ([DATA[:0]], lambda x: x, "same number"),
        ([DATA], lambda x: x.sum(), r"shape \(\) for a batch of 10"),
    ],
)
def test_mistakes_are_named(items, call, words):
    with pytest.raises(ValueError, match=words):
        explain_dataset(call, items, progress=False)


def test_the_path_must_say_the_format():
    with pytest.raises(ValueError, match="h5"):
        explain_dataset(fn, batches(), path="x.npz", progress=False)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="tqdm is needed for the progress bar"):
        explain_dataset(fn, batches())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="h5py"):
        explain_dataset(fn, batches(), path="x.h5", progress=False)


def test_the_progress_bar_counts_batches(capsys):
    pytest.importorskip("tqdm")
    explain_dataset(fn, batches())
    assert "3/3" in capsys.readouterr().err


def test_an_attribution_database(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "run.attribution.h5"
    assert explain_dataset(fn, batches(), path=path, progress=False) == path
    with h5py.File(path) as file:
        assert set(file) == {"attribution", "prediction", "label", "index"}
        np.testing.assert_allclose(file["attribution"], np.moveaxis(2 * DATA, -1, 1))
        assert file["attribution"].dtype == np.float32
        np.testing.assert_array_equal(file["index"], np.arange(10))
        assert file["index"].dtype == np.uint32
        np.testing.assert_array_equal(file["label"], np.eye(10))
    assert os.listdir(tmp_path) == [path.name]
    explain_dataset(None, batches(), path=path, progress=False)  # it is there: nothing is called


def test_small_floats_are_widened_and_axes_stay_where_told(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "run.h5"
    explain_dataset(
        lambda x, y: x.astype(jnp.bfloat16), batches(), path=path, channels_first=(), progress=False
    )
    with h5py.File(path) as file:
        assert file["attribution"].shape == DATA.shape
        assert file["attribution"].dtype == np.float32


def test_a_run_goes_on_after_an_error(tmp_path):
    pytest.importorskip("h5py")
    calls = []

    def fails(x, y):
        calls.append(int(y[0]))
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return fn(x, y)

    with pytest.raises(RuntimeError, match="out of memory"):
        explain_dataset(fails, batches(), path=tmp_path / "a.h5", progress=False)
    explain_dataset(fails, batches(), path=tmp_path / "a.h5", progress=False)
    assert calls == [0, 4, 8, 4, 8]  # the batch that was still waiting is done again
    explain_dataset(fn, batches(), path=tmp_path / "b.h5", progress=False)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_other_data_is_not_mixed_in(tmp_path):
    pytest.importorskip("h5py")

    def fails(x, y):
        if y[0]:
            raise RuntimeError
        return fn(x, y)

    path = tmp_path / "a.h5"
    with pytest.raises(RuntimeError):
        explain_dataset(fails, batches(3), path=path, progress=False)
    with pytest.raises(RuntimeError):
        explain_dataset(fails, [(x, y + 1) for x, y in batches(5)], path=path, progress=False)
    parts = datasets._Parts(path)
    parts.checksums.append(0)
    parts.write(0, {"attribution": DATA})
    with pytest.raises(ValueError, match="batch 0 is not the one"):
        explain_dataset(fn, batches(), path=path, progress=False)


def test_a_killed_run_ends_with_the_same_file(tmp_path):
    pytest.importorskip("h5py")
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        import numpy as np
        from lrp_jax.datasets import explain_dataset

        def batches():
            rng = np.random.default_rng(0)
            for size in [4] * 9 + [2]:
                time.sleep(float(sys.argv[2]))
                yield rng.normal(size=(size, 4, 4, 1)).astype(np.float32)

        explain_dataset(lambda x: 2 * x, batches(), path=sys.argv[1], progress=False)
        """)
    )
    root = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    killed, clean = tmp_path / "killed.h5", tmp_path / "clean.h5"
    parts = tmp_path / "killed.h5.parts"
    process = subprocess.Popen([sys.executable, str(script), str(killed), "0.2"], env=env)
    while not (parts / "00000002.npz").exists():
        time.sleep(0.02)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert parts.exists()
    assert not killed.exists()
    for path in (killed, clean):
        subprocess.run([sys.executable, str(script), str(path), "0"], env=env, check=True)
    assert killed.read_bytes() == clean.read_bytes()
    assert not parts.exists()


def test_every_process_writes_a_file_of_its_own(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    for process in range(2):
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        path = explain_dataset(
            lambda x: 2 * x, [DATA[process::2]], path=tmp_path / "all.h5", progress=False
        )
        assert path == tmp_path / f"all-{process}-of-2.h5"
        with h5py.File(path) as file:
            found = np.moveaxis(file["attribution"][:], 1, -1)
        np.testing.assert_allclose(found, 2 * DATA[process::2])
