"""torchode: every sample with its own step size, differentiated directly."""

from importlib.metadata import version

import torch
import torchode

import peer
import torch_common


def prepare(case, task, variant):
    """variant is eager, or compile: the solver goes through torch.compile."""

    def make():
        f = torch_common.F(case)
        term = torchode.ODETerm(f)
        # The gradient of the steps taken: how their sizes depend on z0 and θ is not a
        # part of it, as on the other sides.
        solver = torchode.AutoDiffAdjoint(
            torchode.Dopri5(term=term),
            torchode.IntegralController(atol=case.atol, rtol=case.rtol, term=term),
            backprop_through_step_size_control=False,
        )
        # solve itself: torch.compile(solver).solve is the method as it was.
        return f, torch.compile(solver.solve) if variant == "compile" else solver.solve

    f, run = torch_common.once(case, variant, make)
    times = torch.from_numpy(case.times).repeat(len(case.z0), 1)

    def solve(z0):
        job.solution = run(torchode.InitialValueProblem(y0=z0, t_eval=times))
        return job.solution.ys.transpose(0, 1)

    def counts(job):
        job.run()
        stats = job.solution.stats
        n = int(stats["n_steps"].max())
        accepted = int(stats["n_accepted"][stats["n_steps"].argmax()])
        evaluations = int(stats["n_f_evals"].max())
        counts = {"evaluations": evaluations, "accepted": accepted, "rejected": n - accepted}
        if task != "forward":
            counts["back"] = evaluations
        return counts

    job = torch_common.TorchJob(case, task, f, solve, counts)
    return job


def versions():
    return {**torch_common.version(), "torchode": version("torchode")}


if __name__ == "__main__":
    peer.serve(versions, prepare)
