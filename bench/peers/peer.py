"""What the Python sides of bench/peers share: the case, the files, and the protocol.

A side reads one JSON object a line from its standard input and answers each with one
line. It prepares jobs (a task of a case in one variant), runs them for their results,
and times them. The requests are those of protocol.go.
"""

import json
import os
import struct
import sys
import time
import traceback

import numpy as np

UPDATES = 3  # of a training run, whose losses are compared
DTYPES = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


def read(path):
    """The arrays of a safetensors file, by name."""
    with open(path, "rb") as file:
        data = file.read()
    (n,) = struct.unpack("<Q", data[:8])
    arrays = {}
    for name, entry in json.loads(data[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            raw = np.frombuffer(data[8 + n + begin : 8 + n + end], DTYPES[entry["dtype"]])
            arrays[name] = raw.reshape(entry["shape"]).copy()
    return arrays


def write(path, arrays):
    """Write arrays of float32 or float64 as a safetensors file."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, blobs, offset = {}, [], 0
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        blob = array.tobytes()
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


class Case:
    """A problem, as the driver describes it."""

    def __init__(self, spec):
        self.activations = spec["model"]["activations"]  # one a layer
        self.cube = spec["model"]["input"] == "cube"  # f reads z³
        self.rtol, self.atol, self.lr = spec["rtol"], spec["atol"], spec["lr"]
        self.file = spec["file"]
        arrays = read(self.file)
        self.z0, self.times, self.targets = arrays["z0"], arrays["times"], arrays["targets"]
        self.layers = [
            (arrays[f"layers.{i}.weight"], arrays[f"layers.{i}.bias"])
            for i in range(len(self.activations))
        ]
        self.dtype = self.z0.dtype


def flat(layers):
    """Weights and biases in the order of the driver's θ."""
    return np.concatenate([np.asarray(x).ravel() for layer in layers for x in layer])


class Job:
    """A task of a case in one variant.

    run does it once and returns when it is done; reset, before every sample, returns a
    training run to its start; check does it once and returns its results as arrays and
    its counts.
    """

    def reset(self):
        pass


def timed(job, calls):
    job.reset()
    cpu, begin = time.process_time(), time.perf_counter()
    for _ in range(calls):
        job.run()
    end = time.perf_counter()
    return {"seconds": (end - begin) / calls, "processor": (time.process_time() - cpu) / calls}


def serve(versions, prepare):
    """Answer requests until the input ends. prepare makes the Job of a request."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is not a reply
    jobs = {}

    def answer(request):
        op = request["op"]
        if op == "hello":
            return {"versions": versions()}
        if op == "prepare":
            begin = time.perf_counter()
            job = prepare(Case(request["case"]), request["task"], request["variant"])
            job.run()
            job.reset()
            jobs[request["job"]] = job
            return {"seconds": time.perf_counter() - begin}
        if op == "drop":
            jobs.pop(request["job"])
            return {}
        job = jobs[request["job"]]
        if op == "check":
            arrays, counts = job.check()
            write(request["file"], arrays)
            return {"counts": counts}
        if op == "time":
            return timed(job, request["calls"])
        raise ValueError(f"unknown request {op}")

    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = answer(request)
        except Exception as error:  # every failure is reported, and the side goes on
            traceback.print_exc()
            text = str(error).strip().splitlines()
            reply = {"error": f"{type(error).__name__}: {text[0] if text else ''}"}
        replies.write(json.dumps(reply) + "\n")
