"""EfficientNet-Lite0 in torch, and pixel flipping there as rodrigobdz/lrp does it.

The loop of https://github.com/rodrigobdz/lrp (`pf`, commit a2b6bd1, MIT), step by step and without
its messages and plots: a mask for every patch of every image, made one after the other and
concatenated; the masks of a step joined one by one; images flipped one by one. One thing is left
out, a last step that paints all of the image grey. torchvision's `erase`, `Grayscale` and
`Normalize` are written out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Forward = Callable[[torch.Tensor], torch.Tensor]


def network(variables: Any, stages: Sequence[tuple[int, ...]]) -> Forward:
    """The network of `benchmarks.networks` with the same weights, on images channels first."""

    def tensor(array: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(array))

    params, statistics = variables["params"], variables["batch_stats"]
    count = sum(name.startswith("Conv") for name in params)
    kernels = [tensor(params[f"Conv_{i}"]["kernel"]).permute(3, 2, 0, 1) for i in range(count)]
    kernels = [kernel.contiguous() for kernel in kernels]
    norms = [
        [
            tensor(statistics[f"BatchNorm_{i}"][name]) if name in ("mean", "var")
            else tensor(params[f"BatchNorm_{i}"][name])
            for name in ("mean", "var", "scale", "bias")
        ]
        for i in range(count)
    ]  # fmt: skip
    classifier = [tensor(params["Dense_0"]["kernel"]).T.contiguous()]
    classifier.append(tensor(params["Dense_0"]["bias"]))

    # Of two norms in one line of the network the outer one, after the projection, is named first.
    order, number = [0], 1
    for repeats, _, _, expansion, _ in stages:
        for _ in range(repeats):
            first = [number] if expansion > 1 else []
            number += len(first) + 2
            order += [*first, number - 1, number - 2]
    layers = list(zip(kernels, (norms[i] for i in [*order, number]), strict=True))

    @torch.no_grad()
    def forward(x: torch.Tensor) -> torch.Tensor:
        todo = iter(layers)

        def conv(x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
            kernel, norm = next(todo)
            padding = []  # as much as needed; what is odd goes to the far side
            for size, k in zip(x.shape[:1:-1], kernel.shape[:1:-1], strict=True):
                total = max((-(-size // stride) - 1) * stride + k - size, 0)
                padding += [total // 2, total - total // 2]
            y = F.conv2d(F.pad(x, padding), kernel, stride=stride, groups=groups)
            return F.batch_norm(y, *norm, eps=1e-5)

        x = F.relu6(conv(x, 2))
        for repeats, _, stride, expansion, _ in stages:
            for block in range(repeats):
                y = F.relu6(conv(x)) if expansion > 1 else x
                y = F.relu6(conv(y, stride if block == 0 else 1, y.shape[1]))
                y = conv(y)
                x = x + y if x.shape == y.shape else y
        return F.linear(F.relu6(conv(x)).mean((2, 3)), *classifier)

    return forward


MEAN, DEVIATION = (
    torch.tensor(v).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
)


def flip(
    x: torch.Tensor, relevance: torch.Tensor, forward: Forward, patch: int, inpaint: bool
) -> torch.Tensor:
    """The scores `(batch, steps + 1)`, in quadratic steps: one patch, three more, five more, ..."""
    side = x.shape[-1] // patch
    low, high = float(x.min()), float(x.max())
    generator = np.random.default_rng(0)
    flipped = x.detach().clone()
    scores = torch.zeros(len(x), side + 1)
    scores[:, 0] = forward(flipped)
    gone = torch.zeros(x.shape, dtype=torch.bool).sum(1)
    masks = _masks(relevance, patch)
    for step in range(1, side + 1):
        mask = next(masks)
        for _ in range(2 * step - 2):
            mask = torch.logical_or(mask, next(masks))
        for index in range(len(x)):  # for its messages alone
            before = int(gone[index].count_nonzero().item())
            after = torch.logical_or(gone[index], mask[index, 0])
            after.count_nonzero().item() - before
        gone = torch.logical_or(gone, mask.squeeze(1))
        if inpaint:
            pixels = (flipped * DEVIATION + MEAN) * 255.0
            pixels = _inpainted(pixels.int(), gone.unsqueeze(1)).float()
            flipped = (pixels / 255.0 - MEAN) / DEVIATION
        else:
            _overwrite(flipped, mask, generator, low, high)
        scores[:, step] = forward(flipped)
    return scores


def _masks(relevance: torch.Tensor, patch: int) -> Iterator[torch.Tensor]:
    """The next patch of every image, most relevant first."""
    luma = torch.tensor([0.2989, 0.587, 0.114]).reshape(1, 3, 1, 1)
    grey = (relevance * luma).sum(1, keepdim=True)
    patches = grey.unfold(2, patch, patch).unfold(3, patch, patch)
    side = patches.shape[2]
    order = patches.reshape(len(relevance), -1, patch * patch).sum(2).argsort(descending=True)
    for number in range(side * side):
        mask = torch.zeros(0, dtype=torch.bool)
        for index in range(len(relevance)):
            i, j = np.unravel_index(int(order[index, number].item()), (side, side))
            one = torch.zeros(1, *relevance.shape[2:], dtype=torch.bool).clone()
            one[..., i * patch : (i + 1) * patch, j * patch : (j + 1) * patch] = True
            mask = torch.cat((mask, one))
        yield mask.unsqueeze(1)


def _overwrite(
    x: torch.Tensor, mask: torch.Tensor, generator: np.random.Generator, low: float, high: float
) -> None:
    """One random number for all that goes in this step, in each image by itself."""
    for index in range(len(x)):
        wide = mask[index].expand(x[index].shape)
        value = generator.uniform(low, high)
        mask.nonzero().flatten().tolist()  # for its messages alone
        x[index][wide].count_nonzero().item()
        x[index][wide] = value


def _inpainted(pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    import cv2

    found = torch.zeros(0)
    for index in range(len(pixels)):
        hole = mask[index].int().numpy().transpose(1, 2, 0).astype(np.uint8)
        image = pixels[index].numpy().transpose(1, 2, 0).astype(np.uint8)
        image = cv2.inpaint(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), hole, 3, cv2.INPAINT_TELEA)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)
        found = torch.cat((found, torch.from_numpy(image).unsqueeze(0)))
    return found
