"""Which labels a state has: against one product with the whole table of who has what."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from nextup.data.attributes import attribute_matrix
from nextup.nn.agreement import Heads

# Item 2 has no label, item 3 all of them; item 0 is padding.
HAS = attribute_matrix([["red", "small"], None, ["small", "wool", "red"], "wool"])


@pytest.mark.parametrize("asked", [[1, 2, 3, 4], [3, 3, 1], [2], [0, 2], [2, 4, 2], []])
def test_labels_cost_what_their_cross_entropy_is(asked: list[int]) -> None:
    torch.manual_seed(0)
    heads = Heads({"map": True}, 5, 1.0, HAS).double()
    items = torch.tensor(asked, dtype=torch.int64)
    states = torch.randn(len(asked), 5, dtype=torch.float64, requires_grad=True)
    assert heads.attributes is not None
    told = heads.labels_loss(states, items)
    wanted = HAS.to_dense().double()[items]
    expected = binary_cross_entropy_with_logits(
        states @ heads.attributes.T, wanted, reduction="sum"
    )
    assert told.item() == pytest.approx(expected.item(), abs=1e-12)
    for one in (states, heads.attributes):
        mine, theirs = (
            torch.autograd.grad(each, one, retain_graph=True) for each in (told, expected)
        )
        torch.testing.assert_close(mine, theirs)


def test_what_items_have_is_no_weight() -> None:
    heads = Heads({"map": True}, 5, 1.0, HAS)
    assert set(heads.state_dict()) == {"gap", "map.weight", "map.bias", "attributes"}
