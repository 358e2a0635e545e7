"""Which texts share a bin, and that every row has its place."""

from __future__ import annotations

import torch

from workers.bins import Bins, binned, rounded


def made(lengths: list[int]) -> list[Bins]:
    return binned(lengths, torch.device("cpu"), torch.float32)


def test_rows_of_a_batch_come_in_few_sizes() -> None:
    assert [rounded(count) for count in (1, 16, 17, 128, 129, 1_000)] == [
        16,
        16,
        32,
        128,
        192,
        1_024,
    ]
    assert len({rounded(count) for count in range(1, 2_049)}) == 8 + 30
    assert [rounded(count, 4) for count in (1, 5, 128, 129)] == [4, 8, 128, 144]


def test_short_texts_share_bins_and_long_ones_have_their_own() -> None:
    found = [
        (one.rows.start, one.rows.stop, one.count, one.width)
        for one in made([200, 60, 60, 12, 12, 11])
    ]
    assert found == [(0, 200, 1, 200), (200, 355, 3, 64)]


def test_bins_are_no_wider_than_what_is_in_them() -> None:
    assert [(one.count, one.width) for one in made([100, 97, 45, 9, 8, 7])] == [
        (2, 112), (1, 45), (1, 32),
    ]  # fmt: skip


def test_a_text_alone_needs_no_mask() -> None:
    (one,) = made([13])
    assert (one.rows, one.count, one.width) == (slice(0, 13), 1, 13)
    assert one.take is one.put is one.mask is None


def test_every_row_is_taken_once_put_back_and_sees_its_own_text() -> None:
    lengths = [30, 30, 29, 20, 7, 7, 7, 1, 1]
    owners = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seen = 0
    for one in made(lengths):
        assert one.take is not None
        assert one.put is not None
        assert one.mask is not None
        assert torch.equal(one.take[one.put], torch.arange(one.rows.start, one.rows.stop))
        owner = torch.full((one.count * one.width,), -1)
        owner[one.put] = owners[one.rows]
        owner = owner.view(one.count, 1, one.width)
        assert torch.equal(one.mask[:, 0] == 0, owner.mT == owner)
        assert torch.isfinite(one.mask).any(3).all()
        seen += len(one.put)
    assert seen == sum(lengths)
