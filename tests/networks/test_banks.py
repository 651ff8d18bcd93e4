"""A bank of rows: order, capacity, and that a checkpoint knows how many there are."""

import torch

from anomaly_lab.networks.banks import Bank


def test_rows_stay_in_order_up_to_the_capacity():
    bank, rows = Bank(5, (2, 3)), torch.rand(8, 2, 3)
    for part in rows.split(3):
        bank.gather(part)
    assert torch.equal(bank.gathered, rows[:5])


def test_a_checkpoint_knows_how_many_there_are():
    bank, other = Bank(5, (1,)), Bank(5, (1,))
    bank.gather(torch.ones(3, 1))
    other.load_state_dict(bank.state_dict())
    assert other.count == 3
    other.gather(torch.zeros(1, 1))
    assert other.gathered.flatten().tolist() == [1, 1, 1, 0]
