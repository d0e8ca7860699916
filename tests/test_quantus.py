"""Our metrics give the numbers of Quantus, and Quantus takes our models through the adapter."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrp_jax import baselines, evaluation
from lrp_jax.evaluation import quantus as adapter

STORED = dict(np.load(Path(__file__).parent / "reference" / "quantus.npz"))
X, LABELS, R, MASK = (STORED[k] for k in ("x", "labels", "relevance", "mask"))
PARAMS = {"w1": STORED["w1"], "w2": STORED["w2"]}


def apply(params, x):
    return jnp.tanh(x.reshape(len(x), -1) @ params["w1"]) @ params["w2"]


EXPLAIN = baselines.input_x_gradient(apply)


def ask(metric, **more):
    return metric(PARAMS, X, relevance=R, target=LABELS, **more)


def flipped(**options):
    curves = ask(evaluation.pixel_flipping(apply, **options))
    return np.asarray(curves.score)


def cumulative_blocks():
    """Quantus keeps a patch removed when it removes the next."""
    masks = np.zeros((9, 1, 6, 6, 1), bool)
    for n in range(9):
        i, j = divmod(n, 3)
        masks[n:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = True
    return masks


OURS = {
    "sparseness": lambda: evaluation.sparseness(R),
    "complexity": lambda: evaluation.complexity(R),
    "pointing_game": lambda: evaluation.pointing_game(R, MASK),
    "relevance_mass": lambda: evaluation.relevance_mass_accuracy(R, MASK),
    "relevance_rank": lambda: evaluation.relevance_rank_accuracy(R, MASK),
    "pixel_flipping": lambda: flipped(axes=(1, 2, 3), schedule=list(range(0, 73, 9)))[:, 1:],
    "regions_morf": lambda: -np.diff(flipped(patch=2, steps=9), axis=1).cumsum(1),
    "regions_lerf": lambda: -np.diff(flipped(patch=2, steps=9, order="lerf"), axis=1).cumsum(1),
    "faithfulness": lambda: ask(
        evaluation.faithfulness_correlation(apply, masks=STORED["faithfulness_masks"])
    ),
    "infidelity": lambda: ask(
        evaluation.infidelity(apply, masks=cumulative_blocks(), multiplied=False)
    ),
    "max_sensitivity": lambda: evaluation.max_sensitivity(EXPLAIN, radius=0.2, samples=5)(
        PARAMS, X, target=LABELS, key=jax.random.key(0)
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_the_numbers_are_those_of_quantus(name):
    # Quantus adds 1e-7 to each relevance before it sorts, and 1e-12 inside of a logarithm.
    tolerance = {"sparseness": 1e-5, "complexity": 1e-7}.get(name, 1e-9)
    np.testing.assert_allclose(OURS[name](), STORED[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("order", ["top_down", "independent"])
def test_randomisation_is_that_of_quantus(order):
    """On the same shuffled parameters."""

    def shuffled(key, parameter):
        return STORED["mprt_w1" if parameter.shape == PARAMS["w1"].shape else "mprt_w2"]

    test = evaluation.parameter_randomisation(
        EXPLAIN, randomise=shuffled, similarity=evaluation.pearson, cascading=order == "top_down"
    )
    result = test(PARAMS, X, target=LABELS)
    assert result.layers == ("w2", "w1")
    np.testing.assert_allclose(result.similarity, STORED[f"mprt_{order}"], rtol=1e-9, atol=1e-9)


def test_random_logit_is_one_of_the_possible_ones():
    """Quantus draws the other class itself: its number must be that of one of them."""
    first, *others = (
        np.asarray(EXPLAIN(PARAMS, X, target=(LABELS + k) % 3)).reshape(4, -1) for k in range(3)
    )
    possible = [evaluation.pearson(jnp.asarray(first), jnp.asarray(o)) for o in others]
    assert (np.abs(np.array(possible) - STORED["random_logit"]).min(0) < 1e-9).all()


def test_the_stored_explanation_is_ours():
    np.testing.assert_allclose(R, EXPLAIN(PARAMS, X, target=LABELS), atol=1e-12)


def test_the_adapter_runs_quantus_itself():
    pytest.importorskip("torch")
    quantus = pytest.importorskip("quantus")
    model = adapter.as_torch(apply, PARAMS)
    for metric in (
        quantus.PixelFlipping(features_in_step=12, disable_warnings=True),
        quantus.MPRT(disable_warnings=True),
    ):
        scores = metric(
            model=model,
            x_batch=adapter.channels_first(X).astype(np.float32),
            y_batch=LABELS,
            explain_func=adapter.explain_func(EXPLAIN),
            device="cpu",
        )
        assert len(scores)


def test_the_torch_module_computes_the_model():
    torch = pytest.importorskip("torch")
    model = adapter.as_torch(apply, PARAMS)
    output = model(torch.from_numpy(adapter.channels_first(X)))
    np.testing.assert_allclose(output.numpy(), apply(PARAMS, X), atol=1e-12)
    before = model.params()["w1"]
    next(model.modules())
    model.leaves[0].reset_parameters()
    after = model.params()["w1"]
    assert np.abs(after - before).max() > 0
    np.testing.assert_allclose(np.sort(after, None), np.sort(before, None))


def test_explanations_are_arrays_of_quantus_shape():
    class Model:
        def params(self):
            return PARAMS

    inputs = adapter.channels_first(X)
    r = adapter.explain_func(EXPLAIN)(Model(), inputs, LABELS.tolist(), method="any", device="cpu")
    assert type(r) is np.ndarray
    assert r.flags.writeable
    np.testing.assert_allclose(r, adapter.channels_first(R), atol=1e-12)


def test_a_missing_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="torch is needed"):
        adapter.as_torch(apply, PARAMS)
