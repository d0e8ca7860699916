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

import lrp_jax as lrp
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

    def same(x, y):
        assert isinstance(x, jax.core.Tracer)  # it is there: nothing is computed
        return fn(x, y)

    assert explain_dataset(same, batches(), path=path, progress=False) == path


def test_small_floats_are_widened_and_axes_stay_where_told(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "run.h5"
    explain_dataset(
        lambda x, y: x.astype(jnp.bfloat16), batches(), path=path, channels_first=(), progress=False
    )
    with h5py.File(path) as file:
        assert file["attribution"].shape == DATA.shape
        assert file["attribution"].dtype == np.float32


def environment():
    """Of a process that imports this package too."""
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}


class Interrupted:
    """A function that fails in one of its calls, and counts them."""

    def __init__(self, function, call=3):
        self.function, self.calls, self.call = function, [], call

    def __call__(self, x, y):
        if isinstance(x, jax.core.Tracer):
            return self.function(x, y)
        self.calls.append(int(y[0]))
        if len(self.calls) == self.call:
            raise RuntimeError("out of memory")
        return self.function(x, y)


def interrupted(path, function=fn, items=None):
    with pytest.raises(RuntimeError, match="out of memory"):
        explain_dataset(Interrupted(function), items or batches(), path=path, progress=False)


def test_a_run_goes_on_after_an_error(tmp_path):
    pytest.importorskip("h5py")
    fails = Interrupted(fn)
    with pytest.raises(RuntimeError, match="out of memory"):
        explain_dataset(fails, batches(), path=tmp_path / "a.h5", progress=False)
    explain_dataset(fails, batches(), path=tmp_path / "a.h5", progress=False)
    assert fails.calls == [0, 4, 8, 4, 8]  # the batch that was still waiting is done again
    explain_dataset(fn, batches(), path=tmp_path / "b.h5", progress=False)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


WEIGHTS = RNG.normal(size=(48, 3)).astype(np.float32)


def explained(composite, weights=WEIGHTS):
    explain = lrp.relevance(lambda w, x: jax.nn.relu(x.reshape(len(x), -1) @ w), composite)
    return lambda x, y: explain(weights, x)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"function": explained(lrp.Gamma(0.5))}, "differs in the function or its composite:"),
        ({"function": explained(lrp.Epsilon(1e-5))}, "differs in the function or its composite:"),
        (
            {"function": explained(lrp.Epsilon(), WEIGHTS + 1e-3)},
            r"differs in the parameters \(arrays that the function holds\):",
        ),
        ({"data": [(x + 1, y) for x, y in batches()]}, r"differs in the data \(the first batch\):"),
        ({"channels_first": ()}, "differs in channels_first:"),
    ],
    ids=["composite", "number of a rule", "parameters", "data", "layout"],
)
def test_another_run_is_not_mixed_in(tmp_path, change, words):
    pytest.importorskip("h5py")
    given = {"function": explained(lrp.Epsilon()), "data": batches(), **change}
    function, data = given.pop("function"), given.pop("data")
    parts, whole = tmp_path / "parts.h5", tmp_path / "whole.h5"
    interrupted(parts, explained(lrp.Epsilon()))
    explain_dataset(explained(lrp.Epsilon()), batches(), path=whole, progress=False)
    for path, remedy in ((parts, "that folder"), (whole, "it")):
        with pytest.raises(ValueError, match=f"(?s){path}.*{words}.*remove {remedy} to start"):
            explain_dataset(function, data, path=path, progress=False, **given)
        # the same run goes on and is done, a function of the same program and arrays is the same
        explain_dataset(explained(lrp.Epsilon()), batches(), path=path, progress=False)


def test_later_batches_are_compared_too(tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with pytest.raises(RuntimeError, match="out of memory"):
        explain_dataset(Interrupted(fn, 5), batches(2), path=path, progress=False)
    other = batches(2)
    other[1] = (other[1][0] + 1, other[1][1])
    with pytest.raises(ValueError, match="batch 1 is not the one"):
        explain_dataset(fn, other, path=path, progress=False)
    with pytest.raises(ValueError, match="more batches than the 2"):
        explain_dataset(fn, batches(2)[:2], path=path, progress=False)
    explain_dataset(fn, batches(2), path=path, progress=False)
    with pytest.raises(ValueError, match="differs in the number of batches"):
        explain_dataset(fn, batches(2)[:2], path=path, progress=False)


def test_a_function_that_is_not_traced_is_known_by_its_results(tmp_path):
    pytest.importorskip("h5py")

    def of(composite):
        return lambda x, y: np.asarray(explained(composite)(x, y)) * float(np.ones(1)[0])

    for path, start in ((tmp_path / "a.h5", interrupted), (tmp_path / "b.h5", None)):
        if start is not None:
            start(path, of(lrp.Epsilon()))
        else:
            explain_dataset(Interrupted(of(lrp.Epsilon()), 0), batches(), path=path, progress=False)
        with pytest.raises(ValueError, match="differs in what the function returns"):
            explain_dataset(Interrupted(of(lrp.ZPlus()), 0), batches(), path=path, progress=False)
        explain_dataset(Interrupted(of(lrp.Epsilon()), 0), batches(), path=path, progress=False)
        assert path.exists()


def test_a_file_of_something_else_is_not_returned(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["attribution"] = DATA
    (tmp_path / "text.h5").write_text("no HDF5")
    for name in ("other.h5", "text.h5"):
        with pytest.raises(ValueError, match=f"{name} is there and does not say which run"):
            explain_dataset(fn, batches(), path=tmp_path / name, progress=False)


def test_parts_of_unknown_origin_are_refused(tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    interrupted(path)
    (tmp_path / "a.h5.parts" / "run.json").unlink()
    with pytest.raises(ValueError, match="do not say which run wrote them"):
        explain_dataset(fn, batches(), path=path, progress=False)


def test_the_disk_is_tried_before_the_work(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.h5").mkdir()

    def never(x, y):
        assert isinstance(x, jax.core.Tracer)
        return fn(x, y)

    for path in (tmp_path / "file" / "a.h5", tmp_path / "folder.h5", Path("/proc/a.h5")):
        with pytest.raises(OSError, match=str(path)):
            explain_dataset(never, batches(), path=path, progress=False)
    if os.geteuid():
        os.chmod(tmp_path, 0o500)
        with pytest.raises(PermissionError, match=r"a\.h5"):
            explain_dataset(never, batches(), path=tmp_path / "a.h5", progress=False)
        os.chmod(tmp_path, 0o700)


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    path = tmp_path / "a.h5"

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space"):
            explain_dataset(fn, batches(), path=path, progress=False)
    assert sorted(os.listdir(tmp_path)) == ["a.h5.parts"]
    assert os.listdir(tmp_path / "a.h5.parts") == ["run.json"]
    left = tmp_path / "a.h5.parts" / f".00000000.npz.1{datasets.UNFINISHED}"
    left.write_bytes(b"of a process that was killed")
    interrupted(path)
    assert not left.exists()
    explain_dataset(fn, batches(), path=path, progress=False)
    assert os.listdir(tmp_path) == ["a.h5"]


def test_one_process_at_a_time_writes_a_path(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"

    def second(x, y):
        if not isinstance(x, jax.core.Tracer):
            with pytest.raises(RuntimeError, match=f"process {os.getpid()} on .* is writing"):
                explain_dataset(second, batches(), path=path, progress=False)
        return fn(x, y)

    explain_dataset(second, batches(), path=path, progress=False)
    assert os.listdir(tmp_path) == ["a.h5"]
    # a lock file whose process is gone holds nobody up
    path.unlink()
    (tmp_path / "a.h5.lock").write_text("process 1 on another computer")
    explain_dataset(fn, batches(), path=path, progress=False)
    assert os.listdir(tmp_path) == ["a.h5"]
    with h5py.File(path) as file:
        assert len(file["index"]) == 10


def test_processes_on_one_path_leave_no_batch_out(tmp_path):
    h5py = pytest.importorskip("h5py")
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        import numpy as np
        from lrp_jax.datasets import explain_dataset

        def batches():
            for i in range(12):
                time.sleep(0.02)
                yield np.full((2, 3), i, np.float32)

        while True:
            try:
                explain_dataset(lambda x: 2 * x, batches(), path=sys.argv[1], progress=False)
                break
            except RuntimeError as error:
                assert "is writing" in str(error), error
                time.sleep(0.01)
        """)
    )
    env = environment()
    path = tmp_path / "out" / "a.h5"
    command = [sys.executable, str(script), str(path)]
    processes = [subprocess.Popen(command, env=env) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["attribution"][:, 0], 2 * np.repeat(np.arange(12), 2))
    assert os.listdir(path.parent) == ["a.h5"]


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
    env = environment()
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
