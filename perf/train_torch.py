#!/usr/bin/env python3
"""One training step of the seed's network: PyTorch at one thread against `mini train`.

Usage: perf/train_torch.py [path of the mini executable]

Prints both times and their quotient; does nothing but say so where PyTorch is not installed. The network
is that of mini: one pre-norm block, dim 128, 4 heads, FFN 512 with ReLU, vocabulary 1004, batch 4,
sequence 64, Adam at 1e-3, gradients clipped to a norm of 1.
"""

import csv
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

try:
    import torch
    from torch import nn
except ImportError:
    print("skipped: PyTorch is not installed (pip install torch)")
    sys.exit(0)

VOCABULARY, DIM, HEADS, FFN, BATCH, SEQ, STEPS = 1004, 128, 4, 512, 4, 64, 100
ROUNDS = 5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, DIM)
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.q, self.k, self.v, self.o = (nn.Linear(DIM, DIM) for _ in range(4))
        self.up, self.down = nn.Linear(DIM, FFN), nn.Linear(FFN, DIM)
        self.head = nn.Linear(DIM, VOCABULARY)
        self.register_buffer("mask", torch.full((SEQ, SEQ), float("-inf")).triu(1))

    def forward(self, ids):
        x = self.embedding(ids)
        h = self.norm1(x)
        q, k, v = (
            f(h).view(BATCH, SEQ, HEADS, DIM // HEADS).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(-1, -2) / (DIM // HEADS) ** 0.5 + self.mask
        h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(BATCH, SEQ, DIM)
        x = x + self.o(h)
        x = x + self.down(torch.relu(self.up(self.norm2(x))))
        return self.head(x)


def of_torch():
    torch.set_num_threads(1)
    torch.manual_seed(42)
    net = Net()
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    loss_of = nn.CrossEntropyLoss()
    ids = torch.randint(4, VOCABULARY, (STEPS + 10, BATCH, SEQ + 1))
    for step in range(STEPS + 10):
        if step == 10:
            start = time.perf_counter()
        batch = ids[step]
        adam.zero_grad()
        loss = loss_of(net(batch[:, :-1]).reshape(-1, VOCABULARY), batch[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
    return (time.perf_counter() - start) * 1e3 / STEPS


def of_mini(program):
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            [program, "train", "--train-threads", "1", "--out", out], check=True, stdout=subprocess.DEVNULL
        )
        with open(pathlib.Path(out) / "timings/train_seed.csv") as table:
            return float(next(csv.DictReader(table))["ms_per_step"])


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    program = sys.argv[1] if len(sys.argv) > 1 else str(root / "target/release/mini")
    # In turn, and the median of each: what else the machine does then meets both.
    rounds = [(of_torch(), of_mini(program)) for _ in range(ROUNDS)]
    torch_ms, mini_ms = (statistics.median(times) for times in zip(*rounds))
    print(f"one step at one thread, median of {ROUNDS}: PyTorch {torch.__version__} {torch_ms:.2f} ms, "
          f"mini {mini_ms:.2f} ms, {torch_ms / mini_ms:.2f} x")


main()
