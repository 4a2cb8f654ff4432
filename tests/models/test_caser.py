"""Caser against PyTorch's convolutions, its count of weights, and how windows are learnt from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, logsigmoid

from nextup.data.batches import Batch, batch_of_lists
from nextup.data.sequences import Sequences
from nextup.errors import ConfigError
from nextup.models.caser import Caser
from nextup.models.registry import make_model
from nextup.nn.image_filters import ImageFilters

N_ITEMS, WIDTH, L = 12, 4, 5
TRAIN = Sequences.from_lists([[1, 2, 3, 2, 4, 5, 6, 7, 8, 9], [4, 1, 3], [5, 6, 7, 8, 9, 1]])
CPU = torch.device("cpu")


def model_of(**more: object) -> Caser:
    torch.manual_seed(1)
    model = make_model("caser", N_ITEMS, {"width": WIDTH, "dropout": 0.0, **more})
    assert isinstance(model, Caser)
    model.prepare(TRAIN, CPU)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.double()


def step_of(model: Caser) -> Batch:
    stream = model.training_stream(TRAIN, batch_size=100, seed=0, device=CPU)
    return stream.batch(stream.order(0), 0, 0)


def filters_of(horizontal: int = 3, vertical: int = 2, tanh: bool = False) -> ImageFilters:
    torch.manual_seed(0)
    return ImageFilters(L, WIDTH, horizontal, vertical, tanh).double()


@pytest.mark.parametrize(("tanh", "longest"), [(False, L), (True, L), (False, L - 1)])
def test_filters_are_convolutions(
    tanh: bool, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFilters, "LONGEST", longest)  # of longer images each height by itself
    filters, image = filters_of(tanh=tanh), torch.randn(6, L, WIDTH, dtype=torch.float64)
    down = conv2d(image[:, None], filters.down.view(2, 1, L, 1), filters.down_bias)
    expected, first = [down.flatten(1)], 0
    for height in range(1, L + 1):
        weight = filters.across[first : first + height * WIDTH].T.reshape(3, 1, height, WIDTH)
        first += height * WIDTH
        bias = filters.across_bias[3 * (height - 1) : 3 * height]
        at = conv2d(image[:, None], weight, bias).squeeze(3)
        expected.append((torch.tanh(at) if tanh else torch.relu(at)).amax(dim=2))
    torch.testing.assert_close(filters(image), torch.cat(expected, dim=1))


@pytest.mark.parametrize("filters", [{"horizontal": 0}, {"vertical": 0}, {"max_length": 100}])
def test_filters_of_one_kind_and_long_images_will_do(filters: dict[str, int]) -> None:
    model = model_of(window_targets=0, **filters)
    loss = model.loss(step_of(model)).total
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss) and model.scores(step_of(model)).shape[1] == N_ITEMS + 1
    assert sum(p.numel() for p in model.filters.buffers()) < 10_000


def test_no_filters_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="model caser: horizontal and vertical are both 0"):
        make_model("caser", N_ITEMS, {"horizontal": 0, "vertical": 0})


def test_the_vertical_branch_is_linear_in_the_image() -> None:
    filters, (a, b) = filters_of(), torch.randn(2, 6, L, WIDTH, dtype=torch.float64)
    none = filters.vertically(torch.zeros_like(a))
    together = filters.vertically(2 * a + 3 * b) - none
    apart = 2 * (filters.vertically(a) - none) + 3 * (filters.vertically(b) - none)
    torch.testing.assert_close(together, apart)


def test_the_horizontal_branch_does_not_care_where_in_the_padding_content_stands() -> None:
    filters, pad = filters_of(), torch.randn(WIDTH, dtype=torch.float64)
    content = torch.randn(1, WIDTH, dtype=torch.float64)
    images = pad.expand(L, L, WIDTH).clone()
    for place in range(L):
        images[place, place] = content
    found = filters.horizontally(images[1:-1])
    # A filter of height h meets the content in each of its rows, if there is padding enough.
    low = found[:, : 3 * 2]
    torch.testing.assert_close(low, low[:1].expand_as(low))


def test_it_has_as_many_weights_as_the_paper_s() -> None:
    d, across, down = 50, 16, 4
    model = make_model("caser", 100)
    model.prepare(Sequences.from_lists([[1, 2, 3]] * 20), CPU)
    heights = sum(across * (h * d + 1) for h in range(1, L + 1))
    layer = (down * d + across * L) * d + d
    tables = 20 * d + 101 * d + 101 * 2 * d + 101
    expected = heights + down * (L + 1) + layer + tables
    # The vector of padding stands apart from the table, whose own row for it is idle.
    assert sum(p.numel() for p in model.parameters()) == expected + d


def test_padding_stands_before_a_short_history() -> None:
    model = model_of()
    (image,) = model.image(batch_of_lists([[3, 4]], L)).detach()
    blank, items = model.padding.detach(), model.items.weight.detach()
    torch.testing.assert_close(image, torch.stack([blank, blank, blank, items[3], items[4]]))


def test_a_window_is_compared_with_each_of_its_targets_and_their_negatives() -> None:
    model = model_of(window_targets=3)
    batch = step_of(model)
    assert batch.targets is not None and batch.negatives is not None
    scores = model.scores(batch)
    rows = torch.searchsorted(batch.last_at, batch.target_at)  # type: ignore[arg-type]
    assert len(batch) == 3 + 1 + 1 and len(rows) == 3 * len(batch)
    taken, other = scores[rows, batch.targets], scores[rows, batch.negatives[:, 0]]
    expected = -logsigmoid(taken).mean() - logsigmoid(-other).mean()
    torch.testing.assert_close(model.loss(batch).total, expected)


def test_the_targets_of_a_window_are_a_set() -> None:
    model = model_of(window_targets=3)
    batch = step_of(model)
    assert batch.targets is not None and batch.negatives is not None
    before = model.loss(batch).total
    turned = batch.targets.view(-1, 3).flip(1).reshape(-1)
    batch.targets.copy_(turned)
    torch.testing.assert_close(model.loss(batch).total, before)


@pytest.mark.parametrize("window_targets", [0, 3])
def test_gradients_are_those_of_finite_differences(window_targets: int) -> None:
    model = model_of(window_targets=window_targets, horizontal=2, vertical=1, activation="tanh")
    batch = step_of(model)
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}

    def run(*values: Tensor) -> Tensor:
        given = dict(zip(weights, values, strict=True))
        result: Tensor = torch.func.functional_call(model, given, (batch,))
        return result

    model.forward = lambda batch: model.loss(batch).total  # type: ignore[method-assign,assignment]
    assert torch.autograd.gradcheck(run, tuple(weights.values()))


def test_a_short_history_reads_padding_and_a_full_one_does_not() -> None:
    """As published: the image of a short history is filled up with a vector that is learnt."""
    model = model_of()
    batches = [batch_of_lists([items], L) for items in ([3, 4], [3, 4, 5, 6, 7])]
    before = [model.scores(batch) for batch in batches]
    with torch.no_grad():
        model.padding += 1.0
    assert not torch.allclose(model.scores(batches[0]), before[0])
    torch.testing.assert_close(model.scores(batches[1]), before[1])


def test_dropout_is_on_what_the_filters_found_and_nowhere_else() -> None:
    model = model_of(dropout=0.5)
    batch = step_of(model)
    torch.manual_seed(3)
    found = model.train().encode(batch, last_only=True)
    torch.manual_seed(3)
    kept = model.drop(torch.ones(len(batch), model.filters.found, dtype=torch.float64))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    z = torch.relu(model.layer(model.filters(model.image(batch)) * kept))
    torch.testing.assert_close(found, torch.cat([z, model.user_vectors(batch)], dim=1))
