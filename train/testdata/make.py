"""Regenerates torch.json, next to this file: what PyTorch computes for losses,
optimisers, gradient clipping and learning-rate schedules, all in float64.

    pip install torch && python3 make.py

Written with torch 2.15.
"""

import json
import math
import pathlib

import torch

HERE = pathlib.Path(__file__).parent
torch.set_default_dtype(torch.float64)


def numbers(t):
    return t.detach().flatten().tolist()


def wave(n, phase):
    return torch.tensor([1.5 * math.sin(1.7 * i + phase) for i in range(n)])


def losses():
    out = []
    p0, y, w = wave(6, 0.3), wave(6, 1.1), torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 0.0])
    y[2] = p0[2]  # a residual of 0
    elementwise = {
        "mse": lambda p, y: torch.nn.functional.mse_loss(p, y, reduction="none"),
        "mae": lambda p, y: torch.nn.functional.l1_loss(p, y, reduction="none"),
        "huber": lambda p, y: torch.nn.functional.huber_loss(p, y, reduction="none", delta=0.7),
    }
    for kind, f in elementwise.items():
        for reduction in "mean", "sum":
            for weights in None, w:
                p = p0.clone().requires_grad_()
                v = torch.ones(6) if weights is None else weights
                loss = (v * f(p, y)).sum()
                if reduction == "mean":
                    loss = loss / v.sum()
                loss.backward()
                out.append(dict(kind=kind, reduction=reduction, pred=numbers(p), target=numbers(y),
                                weights=None if weights is None else numbers(weights),
                                loss=loss.item(), grad=numbers(p.grad)))
    # Logits of five rows and three classes, among them large ones; label -100 is
    # PyTorch's for a row to leave out.
    x0 = 4 * wave(15, 0.9)
    x0[3:6] = torch.tensor([900.0, -900.0, 0.0])
    x0[6:9] = torch.tensor([40.0, 0.0, -3.0])
    labels = [2, 1, 0, -100, 1]
    for reduction in "mean", "sum":
        x = x0.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(x.view(5, 3), torch.tensor(labels), reduction=reduction)
        loss.backward()
        out.append(dict(kind="cross_entropy", reduction=reduction, pred=numbers(x), labels=labels,
                        loss=loss.item(), grad=numbers(x.grad)))
    return out


def optimizers():
    cases = [
        ("sgd", dict(lr=0.1)),
        ("sgd", dict(lr=0.1, weight_decay=0.05)),
        ("sgd", dict(lr=0.1, momentum=0.9)),
        ("sgd", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.05)),
        ("sgd", dict(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.05)),
        ("rmsprop", dict()),
        ("rmsprop", dict(lr=0.02, alpha=0.8, eps=1e-3, weight_decay=0.1)),
        ("rmsprop", dict(lr=0.02, momentum=0.9)),
        ("rmsprop", dict(lr=0.02, centered=True)),
        ("rmsprop", dict(lr=0.02, centered=True, momentum=0.7, weight_decay=0.1)),
        ("adam", dict()),
        ("adam", dict(lr=0.05, betas=(0.7, 0.95), eps=1e-4)),
        ("adam", dict(lr=0.05, weight_decay=0.1)),
        ("adamw", dict()),
        ("adamw", dict(lr=0.05, betas=(0.7, 0.95), weight_decay=0.2)),
    ]
    classes = dict(sgd=torch.optim.SGD, rmsprop=torch.optim.RMSprop, adam=torch.optim.Adam, adamw=torch.optim.AdamW)
    out = []
    for kind, options in cases:
        p = torch.nn.Parameter(wave(5, 0.2))
        start = numbers(p)
        opt = classes[kind]([p], foreach=False, **options)
        grads, thetas = [], []
        for step in range(8):
            p.grad = wave(5, 0.8 * step) * (1e-3 if step == 3 else 1)
            grads.append(numbers(p.grad))
            opt.step()
            thetas.append(numbers(p))
        out.append(dict(kind=kind, options=options, start=start, grads=grads, thetas=thetas))
    return out


def clipping():
    out = []
    for limit in 0.5, 3.0, 100.0:
        p = torch.nn.Parameter(torch.zeros(5))
        p.grad = wave(5, 0.4)
        before = numbers(p.grad)
        norm = torch.nn.utils.clip_grad_norm_([p], limit)
        out.append(dict(limit=limit, grad=before, norm=norm.item(), clipped=numbers(p.grad)))
    return out


def schedules():
    def run(make, n):
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        s = make(opt)
        factors = []
        for _ in range(n):
            factors.append(opt.param_groups[0]["lr"])
            opt.step()
            s.step()
        return factors

    lr = torch.optim.lr_scheduler
    return [
        dict(kind="step", period=4, gamma=0.3, factors=run(lambda o: lr.StepLR(o, 4, gamma=0.3), 15)),
        dict(kind="exponential", period=1, gamma=0.9, factors=run(lambda o: lr.ExponentialLR(o, 0.9), 15)),
        dict(kind="cosine", period=12, min=0.05, factors=run(lambda o: lr.CosineAnnealingLR(o, 12, eta_min=0.05), 13)),
        # LinearLR from 1/5 to 1 in 4 updates, then a cosine.
        dict(kind="cosine", period=8, warmup=5, factors=run(lambda o: lr.SequentialLR(
            o, [lr.LinearLR(o, 0.2, 1.0, 4), lr.CosineAnnealingLR(o, 8)], [5]), 13)),
    ]


data = dict(losses=losses(), optimizers=optimizers(), clipping=clipping(), schedules=schedules())
lines = [f' "{k}": [\n  ' + ",\n  ".join(json.dumps(case) for case in v) + "\n ]" for k, v in data.items()]
(HERE / "torch.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
