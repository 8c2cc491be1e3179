"""Regenerates the test data of package mlp, next to this file:

    python.safetensors       a float32 model as Python's safetensors writes it
    python_bare.safetensors  a float64 model without our metadata
    python.json              inputs and numpy's outputs and derivatives for both
    activations.json         values and derivatives of every activation

    pip install numpy safetensors mpmath && python3 make.py

Written with numpy 2.4, safetensors 0.8 and mpmath 1.4. The networks are built
from analytic functions only, so derivatives come from complex steps
(Im f(x+ih)/h with h = 1e-30), which are exact to rounding and share no code or
formula with a backward pass.
"""

import json
import pathlib

import mpmath
import numpy as np
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
ACT = {
    "identity": lambda s: s,
    "tanh": np.tanh,
    "silu": lambda s: s / (1 + np.exp(-s)),
    "softplus": lambda s: np.log(1 + np.exp(s)),
    "sin": np.sin,
}


def forward(spec, tensors, t, z):
    x = z**3 if spec["input"] == "cube" else z
    for l, act in enumerate(spec["activations"]):
        if spec["time"] == "every_layer" or (spec["time"] == "input" and l == 0):
            x = np.concatenate([x, np.array([t])])
        x = ACT[act](tensors[f"layers.{l}.weight"] @ x + tensors[f"layers.{l}.bias"])
    return x


def jacobian(f, x):
    """Columns are ∂f/∂x_j."""
    columns = []
    for j in range(x.size):
        e = x.astype(complex)
        e[j] += 1e-30j
        columns.append(f(e).imag / 1e-30)
    return np.stack(columns, axis=1)


def case(file, spec, dtype, seed, metadata):
    r = np.random.default_rng(seed)
    tensors = {}
    for l, (n, m) in enumerate(zip(spec["widths"][:-1], spec["widths"][1:])):
        if spec["time"] == "every_layer" or (spec["time"] == "input" and l == 0):
            n += 1
        tensors[f"layers.{l}.weight"] = r.normal(0, 0.7, (m, n)).astype(dtype)
        tensors[f"layers.{l}.bias"] = r.normal(0, 0.7, m).astype(dtype)
    save_file(tensors, HERE / file, metadata=metadata)

    wide = {k: v.astype(np.float64) for k, v in tensors.items()}
    names = [f"layers.{l}.{k}" for l in range(len(spec["activations"])) for k in ("weight", "bias")]
    theta = np.concatenate([wide[k].ravel() for k in names])

    def with_theta(th, t, z):
        parts, i = {}, 0
        for k in names:
            parts[k] = th[i : i + wide[k].size].reshape(wide[k].shape)
            i += wide[k].size
        return forward(spec, parts, t, z)

    # Exact in float32 too.
    z = (r.integers(-64, 64, spec["widths"][0]) / 64).astype(np.float64)
    t = 0.375
    return {
        "file": file,
        "spec": spec,
        "theta": theta.tolist(),
        "t": t,
        "z": z.tolist(),
        "f": forward(spec, wide, t, z).tolist(),
        "df_dz": jacobian(lambda x: forward(spec, wide, t, x), z).tolist(),
        "df_dt": jacobian(lambda x: forward(spec, wide, x[0], z), np.array([t]))[:, 0].tolist(),
        "df_dtheta": jacobian(lambda x: with_theta(x, t, z), theta).tolist(),
    }


def activations():
    """[x, value, derivative] by 50-digit arithmetic, away from kinks."""
    mpmath.mp.dps = 50
    m, one = mpmath, mpmath.mpf(1)
    phi = lambda x: m.exp(-x * x / 2) / m.sqrt(2 * m.pi)
    # By erfc, and with enough digits, so that the left tail is not lost.
    Phi = lambda x: m.erfc(-x / m.sqrt(2)) / 2
    sig = lambda x: 1 / (1 + m.exp(-x))
    c = m.mpf("0.044715")
    u = lambda x: 2 * m.sqrt(2 / m.pi) * (x + c * x**3)
    du = lambda x: 2 * m.sqrt(2 / m.pi) * (1 + 3 * c * x**2)
    leak = m.mpf("0.01")
    table = {
        "identity": (lambda x: x, lambda x: one),
        "tanh": (m.tanh, lambda x: m.sech(x) ** 2),
        "sigmoid": (sig, lambda x: sig(x) * sig(-x)),
        "relu": (lambda x: max(x, m.mpf(0)), lambda x: one if x > 0 else one * 0),
        "leaky_relu": (lambda x: x if x > 0 else leak * x, lambda x: one if x > 0 else leak),
        "elu": (lambda x: x if x > 0 else m.expm1(x), lambda x: one if x > 0 else m.exp(x)),
        "softplus": (lambda x: m.log1p(m.exp(x)), sig),
        "silu": (lambda x: x * sig(x), lambda x: sig(x) + x * sig(x) * sig(-x)),
        "gelu": (lambda x: x * Phi(x), lambda x: Phi(x) + x * phi(x)),
        "gelu_tanh": (
            lambda x: x * sig(u(x)),
            lambda x: sig(u(x)) + x * sig(u(x)) * sig(-u(x)) * du(x),
        ),
        "sin": (m.sin, m.cos),
    }
    points = [-1e4, -800, -700, -40, -30, -20, -8, -5, -3, -2, -1.5, -1.25, -1, -0.75, -0.5]
    points += [-0.1, -1e-3, -1e-10, -1e-300]
    points += [-x for x in points]
    out = {}
    for name, (value, deriv) in table.items():
        rows = []
        for x in sorted(points):
            # 1 - tanh² and the like need e^-x beside 1.
            with m.workdps(1200 if abs(x) > 100 else 50):
                rows.append([x, float(value(m.mpf(x))), float(deriv(m.mpf(x)))])
        out[name] = rows
    return out


def main():
    every = {
        "version": 1,
        "widths": [3, 5, 4, 3],
        "activations": ["tanh", "silu", "identity"],
        "time": "every_layer",
        "input": "cube",
    }
    bare = {
        "version": 1,
        "widths": [2, 6, 2],
        "activations": ["softplus", "sin"],
        "time": "input",
        "input": "identity",
    }
    cases = [
        case("python.safetensors", every, np.float32, 1, {"neuralode.spec": json.dumps(every)}),
        case("python_bare.safetensors", bare, np.float64, 2, None),
    ]
    (HERE / "python.json").write_text(json.dumps(cases, indent=1) + "\n")
    lines = [f'  "{k}": [\n' + ",\n".join(f"    {row}" for row in v) + "\n  ]" for k, v in activations().items()]
    (HERE / "activations.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
