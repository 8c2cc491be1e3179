"""Writes the files of this folder: python3 make.py, with PyTorch (2.15 was used).

Every element is a small number that all types hold exactly.
"""

from collections import OrderedDict

import torch

ramp = lambda *shape: torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape) / 8 - 1

# A state_dict, with its _metadata.
net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
with torch.no_grad():
    for i, p in enumerate(net.parameters()):
        p.copy_(ramp(*p.shape) + i)
torch.save(net.state_dict(), "state_dict.pt")

# All types; views with strides and offsets of one storage; scalars and empty tensors;
# parameters; dicts in dicts and lists; what is no tensor.
base = ramp(4, 5)
torch.save(
    {
        "epoch": 300,
        "lr": 1e-3,
        "note": "ä",
        "none": None,
        "flags": (True, False),
        "big": 1 << 40,
        "negative": -(1 << 40),
        "types": OrderedDict(
            f16=ramp(3).half(), bf16=ramp(3).bfloat16(), f32=ramp(3), f64=ramp(3).double()
        ),
        "views": [base, base.T, base[1:3, 1::2], base[2], base[:, 3]],
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(ramp(2)),
        "state": {0: {"step": torch.tensor(7.0)}},
    },
    "checkpoint.pt",
)

# What is refused.
torch.save(net, "module.pt")
torch.save({"n": torch.arange(3)}, "integers.pt")
torch.save({"x": torch.zeros(1).expand(3)}, "expanded.pt")
torch.save({"x": ramp(2)}, "legacy.pt", _use_new_zipfile_serialization=False)
torch.save({"x": ramp(2)}, "protocol4.pt", pickle_protocol=4)
torch.save({"x": ramp(2).to_sparse()}, "sparse.pt")
torch.jit.save(torch.jit.script(net), "script.pt")
