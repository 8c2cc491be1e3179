"""What the PyTorch sides share: f, and the three tasks around a way to solve."""

import os

import torch
import torch._functorch.config
from torch import nn

import peer

threads = int(os.environ["PEER_THREADS"])
torch.set_num_threads(threads)
torch.set_num_interop_threads(1)
# The adjoint goes through the graph of a compiled f in a way that this optimisation of
# memory forbids, as its error message says.
torch._functorch.config.donated_buffer = False

ACTIVATIONS = {"tanh": torch.tanh, "softplus": nn.functional.softplus, "identity": None}


class F(nn.Module):
    """f(t, z), a multilayer perceptron."""

    def __init__(self, case):
        super().__init__()
        self.layers = nn.ModuleList()
        for weight, bias in case.layers:
            layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.from_numpy(weight).dtype)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weight))
                layer.bias.copy_(torch.from_numpy(bias))
            self.layers.append(layer)
        self.activations = [ACTIVATIONS[a] for a in case.activations]
        self.cube = case.cube

    def forward(self, t, z):
        if self.cube:
            z = z**3
        for layer, activation in zip(self.layers, self.activations):
            z = layer(z)
            if activation is not None:
                z = activation(z)
        return z


made, made_for = {}, None


def once(case, key, make):
    """What make returns, the same for all jobs of a case: a function is compiled once."""
    global made_for
    if made_for != case.file:
        made.clear()
        torch._dynamo.reset()
        made_for = case.file
    if key not in made:
        made[key] = make()
    return made[key]


class TorchJob(peer.Job):
    """solve(z0) returns the states at all times, [n, B, D]."""

    def __init__(self, case, task, f, solve, counts):
        self.task, self.f, self.solve, self.counts = task, f, solve, counts
        self.z0 = torch.from_numpy(case.z0)
        self.targets = torch.from_numpy(case.targets)
        self.start = [torch.from_numpy(x) for layer in case.layers for x in layer]
        self.lr = case.lr
        if task == "gradient":
            self.z0.requires_grad_()
        self.reset()

    def reset(self):
        with torch.no_grad():
            for p, start in zip(self.f.parameters(), self.start):
                p.copy_(start)
        if self.task == "train":
            self.optimizer = torch.optim.Adam(self.f.parameters(), lr=self.lr, fused=True)

    def run(self):
        if self.task == "forward":
            with torch.no_grad():
                self.y = self.solve(self.z0)
            return
        self.z0.grad = None
        for p in self.f.parameters():
            p.grad = None
        self.y = self.solve(self.z0)
        self.loss = nn.functional.mse_loss(self.y, self.targets)
        self.before_backward()
        self.loss.backward()
        if self.task == "train":
            self.optimizer.step()

    def before_backward(self):
        pass

    def check(self):
        if self.task == "train":
            self.reset()
            losses = []
            for _ in range(peer.UPDATES):
                self.run()
                losses.append(self.loss.detach().numpy())
            self.reset()
            return {"losses": peer.np.array(losses, dtype=self.z0.numpy().dtype)}, {}
        counts = self.counts(self)
        arrays = {"y": self.y.detach().numpy()}
        if self.task == "gradient":
            arrays["dz0"] = self.z0.grad.numpy()
            arrays["dtheta"] = peer.flat([(l.weight.grad.numpy(), l.bias.grad.numpy()) for l in self.f.layers])
        return arrays, counts


def version():
    return {"torch": torch.__version__}
