"""Quantus on JAX models: its metrics want a torch module and a function that explains it.

    model = as_torch(apply_fn, params)
    metric = quantus.PixelFlipping(...)
    metric(model=model, x_batch=x, y_batch=labels, explain_func=explain_func(explain), device="cpu")

Images are `(batch, channels, height, width)` on Quantus' side and channels last on this one;
other inputs pass as they are. Needs `torch` (and `quantus`, an extra).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..datasets import require


def as_torch(apply_fn: Callable[..., Any], params: Any) -> Any:
    """A `torch.nn.Module` in evaluation mode that computes `apply_fn(params, x)`.

    Each parameter array is a submodule of its own whose `reset_parameters()` shuffles it, so that
    randomisation tests (MPRT) find what to randomise. Gradients do not flow through the module.

    Args:
      apply_fn: function `(params, x) -> output`, channels last; it is compiled.
      params: any pytree of arrays.

    Returns:
      The module. `module.params()` gives the parameters as they are now, for `explain_func`.

    Raises:
      ImportError: torch is missing.
    """
    torch = require("torch", "Quantus' metrics")
    leaves, tree = jax.tree.flatten(params)
    compiled = jax.jit(apply_fn)

    class Leaf(torch.nn.Module):  # type: ignore[name-defined, misc]
        """One parameter array."""

        def __init__(self, value: Any) -> None:
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(np.array(value)), requires_grad=False)

        def reset_parameters(self) -> None:
            flat = self.value.data.reshape(-1)
            self.value.data = flat[torch.randperm(len(flat))].reshape(self.value.shape)

    class Module(torch.nn.Module):  # type: ignore[name-defined, misc]
        """A JAX function as Quantus wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.leaves = torch.nn.ModuleList(Leaf(leaf) for leaf in leaves)

        def params(self) -> Any:
            values = [jnp.asarray(leaf.value.detach().numpy()) for leaf in self.leaves]
            return jax.tree.unflatten(tree, values)

        def forward(self, x: Any) -> Any:
            output = compiled(self.params(), channels_last(x.detach().cpu().numpy()))
            return torch.from_numpy(np.array(output))

    return Module().eval()


def explain_func(explain: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """An explanation as Quantus calls it.

    Args:
      explain: a function `(params, x, target=...) -> R` of the input's shape, as `relevance`
        makes; it is compiled.

    Returns:
      A function `(model, inputs, targets, **ignored) -> numpy array` of the shape of `inputs`,
      for models made by `as_torch`.
    """
    compiled = jax.jit(lambda params, x, target: explain(params, x, target=target))

    def explained(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        target = jnp.asarray(np.asarray(targets).astype(np.int32))
        relevance = compiled(model.params(), channels_last(np.asarray(inputs)), target)
        # Quantus wants a NumPy array of its own to write to.
        return np.array(channels_first(np.asarray(relevance)))

    return explained


def channels_last(x: np.ndarray) -> np.ndarray:
    """Images with their channels moved to the last axis.

    Args:
        x: `(batch, channels, ...)`.

    Returns:
        The same numbers as `(batch, ..., channels)`.

    >>> channels_last(np.zeros((2, 3, 8, 9))).shape
    (2, 8, 9, 3)
    """
    return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def channels_first(x: np.ndarray) -> np.ndarray:
    """Images with their channels moved behind the batch.

    Args:
        x: `(batch, ..., channels)`.

    Returns:
        The same numbers as `(batch, channels, ...)`.

    >>> channels_first(np.zeros((2, 8, 9, 3))).shape
    (2, 3, 8, 9)
    """
    return np.moveaxis(x, -1, 1) if x.ndim == 4 else x
