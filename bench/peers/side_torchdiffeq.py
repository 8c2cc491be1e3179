"""torchdiffeq: odeint, differentiated directly, and odeint_adjoint."""

import torch
import torchdiffeq

import peer
import torch_common


def prepare(case, task, variant):
    """variant is direct, adjoint or seminorm (the adjoint whose error norm leaves out
    a_θ, the faster one), with "+compile" if f goes through torch.compile."""
    method, _, compile = variant.partition("+")
    f = torch_common.once(case, "f", lambda: torch_common.F(case))
    call = f
    if compile:
        call = torch_common.once(case, "compiled", lambda: torch.compile(f, dynamic=False))
    times = torch.from_numpy(case.times)
    options = {"rtol": case.rtol, "atol": case.atol, "method": "dopri5"}
    if method == "direct" or task == "forward":
        def solve(z0):
            return torchdiffeq.odeint(call, z0, times, **options)
    else:
        if method == "seminorm":
            options["adjoint_options"] = {"norm": "seminorm"}
        def solve(z0):
            return torchdiffeq.odeint_adjoint(call, z0, times, adjoint_params=tuple(f.parameters()), **options)

    def counts(job):
        """Run once more, counting evaluations forwards and backwards, and steps."""
        nonlocal call
        inner, n = call, {"evaluations": 0, "accepted": 0, "rejected": 0}

        class Counting(torch.nn.Module):
            def forward(self, t, z):
                n["evaluations"] += 1
                return inner(t, z)

            def callback_accept_step(self, t, z, dt):
                n["accepted"] += 1

            def callback_reject_step(self, t, z, dt):
                n["rejected"] += 1

        call, forward = Counting(), {}
        job.before_backward = lambda: forward.update(n)
        job.run()
        call = inner
        del job.before_backward
        if not forward:
            return n
        # A step's graph holds each evaluation once: so many products go backwards.
        back = n["evaluations"] - forward["evaluations"] if method != "direct" else forward["evaluations"]
        return {**forward, "back": back}

    return torch_common.TorchJob(case, task, f, solve, counts)


def versions():
    return {**torch_common.version(), "torchdiffeq": torchdiffeq.__version__}


if __name__ == "__main__":
    peer.serve(versions, prepare)
