"""Models between this library, PyTorch and Equinox: trained on one side, evaluated on both.

    python bench/peers/interop.py NEURALODE [OUT.md]

NEURALODE is the program built from cmd/neuralode. Each model is a right-hand side f; what is
compared are solutions of dz/dt = f by the same steps of the same Runge-Kutta method, in
float64 on both sides, so that they differ by rounding alone. The exit code is 1 if one
differs by more than LIMIT, relative to the largest component.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors
import safetensors.torch
import torch
from torch import nn

jax.config.update("jax_enable_x64", True)

LIMIT = 1e-12
STEP, STEPS = 0.05, 40
TIMES = STEP * np.arange(STEPS + 1)
WIDTH = 16

# What the peers learn: the derivative of a state that turns by 2 in a unit of time.
TARGET = np.stack([np.cos(2 * TIMES), np.sin(2 * TIMES)], axis=1)
SLOPE = 2 * np.stack([-TARGET[:, 1], TARGET[:, 0]], axis=1)

# Cases: activation, its torch module and its jax function, and whether f sees the time.
CASES = [
    ("tanh", nn.Tanh, jnp.tanh, False),
    ("silu", nn.SiLU, jax.nn.silu, True),
]
PRECISIONS = {"float32": (torch.float32, jnp.float32), "float64": (torch.float64, jnp.float64)}


def solve(f, z, stack):
    """Rows of the solution by the 3/8 rule, STEPS steps of STEP from t = 0, with z itself."""
    rows, h = [z], STEP
    for i in range(STEPS):
        t = i * h
        k1 = f(t, z)
        k2 = f(t + h / 3, z + h * k1 / 3)
        k3 = f(t + h * 2 / 3, z + h * (k2 - k1 / 3))
        k4 = f(t + h, z + h * (k1 - k2 + k3))
        z = z + h * (k1 + 3 * (k2 + k3) + k4) / 8
        rows.append(z)
    return stack(rows)


def run(*args):
    done = subprocess.run([NEURALODE, *args], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"neuralode {' '.join(args)}: {done.stderr}")
    return done.stdout


def write_csv(path, header, rows):
    with open(path, "w") as f:
        f.write("\n".join([header, *(",".join(repr(float(x)) for x in row) for row in rows)]))


def predict(model, x0, times):
    """This library's solution from x0 at the first of the times, in the model's units."""
    write_csv("times.csv", "time", [[t] for t in times])
    z0 = ",".join(repr(float(x)) for x in x0)
    out = run("predict", model, "--z0", z0, "--times-file", "times.csv", "--method", "rk4_38", "--step", str(STEP), "--json")
    return np.array(json.loads(out)["trajectories"][0]["states"])


def torch_net(activation, dtype, timed):
    widths = [3 if timed else 2, WIDTH, WIDTH, 2]
    layers = []
    for i in range(3):
        layers += [nn.Linear(widths[i], widths[i + 1], dtype=dtype), activation()]
    return nn.Sequential(*layers[:-1])


def torch_solve(net, z0, timed):
    """z0's dtype is that of the computation."""

    def f(t, z):
        return net(torch.cat([z, torch.full_like(z[:1], t)]) if timed else z)

    return solve(f, z0, torch.stack)


def eqx_net(activation, timed, key=0):
    return eqx.nn.MLP(3 if timed else 2, 2, WIDTH, 2, activation, key=jax.random.key(key))


def eqx_solve(net, z0, timed):
    def f(t, z):
        return net(jnp.append(z, t) if timed else z)

    return solve(f, z0, jnp.stack)


def cast(net, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, net)


def difference(a, b):
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def from_here(name, activation, function, timed, precision):
    """Trained here, evaluated there."""
    # A spiral in units of 10 and 1 about (5, -1), from t = 100.
    t = 0.2 * np.arange(20)
    r = np.exp(-0.1 * t)
    x = np.stack([5 + 10 * r * np.cos(2 * t), -1 + r * np.sin(2 * t)], axis=1)
    write_csv("data.csv", "time,a,b", np.column_stack([100 + t, x]))
    run("train", "data.csv", "--out", "run", "--overwrite", "--hidden", f"{WIDTH},{WIDTH}", "--activation", name,
        "--time", "input" if timed else "none", "--precision", precision, "--epochs", "100", "--validation", "0")
    with safetensors.safe_open("run/model.safetensors", "np") as f:
        units = json.loads(f.metadata()["neuralode.data"])
    shift, scale = np.array(units["shift"]), np.array(units["scale"])
    times = units["time_shift"] + units["time_scale"] * TIMES
    ours = predict("run", x[0], times)
    z0 = (x[0] - shift) / scale

    dtypes = PRECISIONS[precision]
    for ending in (".pt", ".safetensors"):
        run("convert", "run", "net" + ending, "--names", "{2i}")
        state = torch.load("net.pt", weights_only=True) if ending == ".pt" else safetensors.torch.load_file("net.safetensors")
        net = torch_net(activation, dtypes[0], timed)
        net.load_state_dict(state, strict=True)
        with torch.no_grad():
            z = torch_solve(net.double(), torch.tensor(z0), timed).numpy()
        yield "here → PyTorch", ending, difference(z * scale + shift, ours)
    run("convert", "run", "net.eqx")
    net = eqx.tree_deserialise_leaves("net.eqx", cast(eqx_net(function, timed), dtypes[1]))
    z = np.asarray(eqx_solve(cast(net, jnp.float64), jnp.array(z0), timed))
    yield "here → Equinox", ".eqx", difference(z * scale + shift, ours)


def inputs(timed):
    return np.column_stack([TARGET, TIMES]) if timed else TARGET


def from_torch(name, activation, function, timed, precision):
    """Trained in PyTorch, evaluated here."""
    dtype = PRECISIONS[precision][0]
    torch.manual_seed(1)
    net = torch_net(activation, dtype, timed)
    x, want = torch.tensor(inputs(timed), dtype=dtype), torch.tensor(SLOPE, dtype=dtype)
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(100):
        adam.zero_grad()
        torch.mean((net(x) - want) ** 2).backward()
        adam.step()
    torch.save(net.state_dict(), "net.pt")
    safetensors.torch.save_file(net.state_dict(), "net.safetensors")
    z0 = TARGET[0]
    with torch.no_grad():
        z = torch_solve(net.double(), torch.tensor(z0), timed).numpy()
    for ending in (".pt", ".safetensors"):
        run("convert", "net" + ending, "model.safetensors", "--activation", name)
        yield "PyTorch → here", ending, difference(z, predict("model.safetensors", z0, TIMES))


def from_eqx(name, activation, function, timed, precision):
    """Trained in Equinox, evaluated here."""
    dtype = PRECISIONS[precision][1]
    net = cast(eqx_net(function, timed, 1), dtype)
    x, want = jnp.array(inputs(timed), dtype), jnp.array(SLOPE, dtype)
    adam = optax.adam(0.01)
    state = adam.init(eqx.filter(net, eqx.is_inexact_array))

    @eqx.filter_jit
    def update(net, state):
        g = eqx.filter_grad(lambda net: jnp.mean((jax.vmap(net)(x) - want) ** 2))(net)
        step, state = adam.update(g, state)
        return eqx.apply_updates(net, step), state

    for _ in range(100):
        net, state = update(net, state)
    eqx.tree_serialise_leaves("net.eqx", net)
    z0 = TARGET[0]
    z = np.asarray(eqx_solve(cast(net, jnp.float64), jnp.array(z0), timed))
    run("convert", "net.eqx", "model.safetensors", "--activation", name)
    yield "Equinox → here", ".eqx", difference(z, predict("model.safetensors", z0, TIMES))


def main(out):
    lines = [
        "# Models between this library, PyTorch and Equinox",
        "",
        "Written by `make interop`; not edited.",
        "",
        f"- versions: Python {platform.python_version()}, torch {torch.__version__}, jax {jax.__version__}, equinox {eqx.__version__}, safetensors {safetensors.__version__}",
        f"- models: multilayer perceptrons, two hidden layers of {WIDTH}; with t, as a further input",
        f"- compared: {STEPS} steps of the 3/8 rule, in float64 on both sides, whatever the precision of the weights",
        "- difference: the largest over all components and times, relative to the largest component",
        "",
        "| trained → evaluated | file | weights | f | difference |",
        "|---|---|---|---|---|",
    ]
    worst = 0.0
    for direction in (from_here, from_torch, from_eqx):
        for case in CASES:
            for precision in PRECISIONS:
                for way, ending, d in direction(*case, precision):
                    worst = max(worst, d if d == d else float("inf"))
                    f = f"{case[0]}, f(z, t)" if case[3] else f"{case[0]}, f(z)"
                    lines.append(f"| {way} | `{ending}` | {precision} | {f} | {d:.1e} |")
                    print(lines[-1], flush=True)
    lines += ["", f"The largest is {worst:.1e}; more than {LIMIT:.0e} is a failure.", ""]
    print(lines[-2])
    if out:
        with open(out, "w") as f:
            f.write("\n".join(lines))
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    NEURALODE = os.path.abspath(sys.argv[1])
    report = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else ""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        code = main(report)
        os.chdir("/")
    sys.exit(code)
