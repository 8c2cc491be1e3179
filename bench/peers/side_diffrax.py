"""diffrax: everything under one jax.jit, jointly or under jax.vmap."""

import os

import peer

threads = int(os.environ["PEER_THREADS"])
# XLA makes as many threads as the process may run on processors when it starts.
allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
if allowed:
    os.sched_setaffinity(0, sorted(allowed)[:threads])

import diffrax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

jax.devices()
if allowed:
    for task in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(task), allowed)

ACTIVATIONS = {"tanh": jnp.tanh, "softplus": jax.nn.softplus, "identity": lambda x: x}


steps = {}  # of a solve, by case and stepping


class JaxJob(peer.Job):
    def __init__(self, case, task, variant):
        """variant is joint or sample, and recursive or seminorm after a slash: the
        BacksolveAdjoint whose error norm leaves out a_θ, which takes no more steps."""
        self.x64 = case.dtype == np.float64
        self.enter()
        stepping, _, method = variant.partition("/")
        self.task, self.lr = task, case.lr
        self.z0, self.times = jnp.asarray(case.z0), jnp.asarray(case.times)
        self.targets = jnp.asarray(case.targets)
        self.start = [(jnp.asarray(w), jnp.asarray(b)) for w, b in case.layers]
        control = diffrax.PIDController(rtol=case.rtol, atol=case.atol)
        adjoint = {}
        if task != "forward":
            if method == "recursive":
                # As many checkpoints as there are steps: none is made again. The default
                # of max_steps takes up to twice the time.
                key = (case.file, stepping)
                if key not in steps:
                    _, n = JaxJob(case, "forward", variant).check()
                    steps[key] = n["accepted"] + n["rejected"]
                adjoint["adjoint"] = diffrax.RecursiveCheckpointAdjoint(checkpoints=steps[key] + 2)
            else:
                norm = diffrax.adjoint_rms_seminorm
                adjoint["adjoint"] = diffrax.BacksolveAdjoint(
                    stepsize_controller=diffrax.PIDController(rtol=case.rtol, atol=case.atol, norm=norm)
                )
        saveat = diffrax.SaveAt(ts=self.times)
        if len(case.times) == 2:
            saveat = diffrax.SaveAt(t0=True, t1=True)

        def f(t, z, params):
            if case.cube:
                z = z**3
            for (w, b), a in zip(params, case.activations):
                z = ACTIVATIONS[a](z @ w.T + b)
            return z

        def one(params, z0):
            sol = diffrax.diffeqsolve(
                diffrax.ODETerm(f), diffrax.Dopri5(), self.times[0], self.times[-1], None, z0, params,
                saveat=saveat, stepsize_controller=control, max_steps=4096, **adjoint,
            )
            return sol.ys, sol.stats

        def solve(params, z0):
            if stepping == "joint":
                return one(params, z0)
            ys, stats = jax.vmap(one, (None, 0))(params, z0)
            return jnp.swapaxes(ys, 0, 1), stats

        def loss(params, z0, targets):
            ys, stats = solve(params, z0)
            return jnp.mean((ys - targets) ** 2), (ys, stats)

        if task == "forward":
            self.call = jax.jit(solve)
        elif task == "gradient":
            self.call = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        else:
            optimizer = optax.adam(case.lr)
            self.init = optimizer.init

            def step(params, state, z0, targets):
                (value, _), grad = jax.value_and_grad(loss, has_aux=True)(params, z0, targets)
                updates, state = optimizer.update(grad, state, params)
                return optax.apply_updates(params, updates), state, value

            self.call = jax.jit(step, donate_argnums=(0, 1))
        self.reset()

    def enter(self):
        if jax.config.jax_enable_x64 != self.x64:
            jax.config.update("jax_enable_x64", self.x64)

    def reset(self):
        self.enter()
        if self.task == "train":
            self.params = jax.tree.map(jnp.copy, self.start)
            self.state = self.init(self.params)
            jax.block_until_ready((self.params, self.state))

    def run(self):
        if self.task == "forward":
            self.out = self.call(self.start, self.z0)
        elif self.task == "gradient":
            self.out = self.call(self.start, self.z0, self.targets)
        else:
            self.params, self.state, self.out = self.call(self.params, self.state, self.z0, self.targets)
        jax.block_until_ready(self.out)

    def check(self):
        self.reset()
        if self.task == "train":
            losses = []
            for _ in range(peer.UPDATES):
                self.run()
                losses.append(np.asarray(self.out))
            self.reset()
            return {"losses": np.array(losses, dtype=np.asarray(self.z0).dtype)}, {}
        self.run()
        if self.task == "forward":
            ys, stats = self.out
            arrays = {"y": np.asarray(ys)}
        else:
            (_, (ys, stats)), (params, z0) = self.out
            arrays = {"y": np.asarray(ys), "dz0": np.asarray(z0), "dtheta": peer.flat(params)}
        steps, accepted = np.atleast_1d(stats["num_steps"]), np.atleast_1d(stats["num_accepted_steps"])
        most = steps.argmax()
        return arrays, {"accepted": int(accepted[most]), "rejected": int(steps[most] - accepted[most])}


def versions():
    return {"jax": jax.__version__, "jaxlib": jax.lib.__version__, "diffrax": diffrax.__version__, "optax": optax.__version__}


if __name__ == "__main__":
    peer.serve(versions, JaxJob)
