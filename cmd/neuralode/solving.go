package main

import (
	"math"

	"github.com/spf13/pflag"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/gpu"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// solving holds the flags that say how to solve.
type solving struct {
	backend, method, stepping string
	rtol, atol, step          float64
}

// add adds all flags but --stepping.
func (s *solving) add(f *pflag.FlagSet) {
	f.StringVar(&s.backend, "backend", "auto", "device: auto, cpu or gpu")
	f.StringVar(&s.method, "method", "tsit5", "Runge-Kutta method: "+names(solver.Methods()))
	f.Float64Var(&s.rtol, "rtol", 0, "relative tolerance of a step (default 1e-6, in float32 1e-4)")
	f.Float64Var(&s.atol, "atol", 0, "absolute tolerance of a step (default 1e-8, in float32 1e-6)")
	f.Float64Var(&s.step, "step", 0, "size of every step; 0 chooses it by the tolerances")
}

func (s *solving) addStepping(f *pflag.FlagSet) {
	f.StringVar(&s.stepping, "stepping", "joint", "one step size for the batch, joint, or for each sample, per_sample")
}

func parseStepping(name string) (solver.Stepping, error) {
	switch name {
	case "joint":
		return solver.Joint, nil
	case "per_sample":
		return solver.PerSample, nil
	}
	return 0, usagef("there is no stepping %q; give joint or per_sample", name)
}

// openBackend opens what --backend names. The caller closes it.
func openBackend[T backend.Float](name string) (backend.Backend[T], error) {
	switch name {
	case "auto":
		return solver.Auto[T](), nil
	case "cpu":
		return cpu.New[T](), nil
	case "gpu":
		return gpu.Open[T](gpu.Options{})
	}
	return nil, usagef("there is no backend %q; give auto, cpu or gpu", name)
}

// addOver is add for commands that have a MODEL, and says what the default of the tolerances is.
func (s *solving) addOver(f *pflag.FlagSet, rtol, atol string) {
	s.add(f)
	f.Lookup("method").DefValue = "that of MODEL"
	f.Lookup("rtol").Usage = "relative tolerance of a step (default " + rtol + ")"
	f.Lookup("atol").Usage = "absolute tolerance of a step (default " + atol + ")"
	f.Lookup("step").Usage = "size of every step, in the network's unit of time; 0 chooses it by the tolerances (default that of MODEL)"
}

// over returns base with what the command line says.
func (s *solving) over(base solver.Settings, f *pflag.FlagSet) (set solver.Settings, err error) {
	set = base
	if f.Changed("method") {
		if set.Method, err = solver.ParseMethod(s.method); err != nil {
			return set, usageError{err}
		}
	}
	if f.Changed("stepping") && s.stepping != "" {
		if set.Stepping, err = parseStepping(s.stepping); err != nil {
			return set, err
		}
	}
	if f.Changed("rtol") || f.Changed("atol") {
		set.Step = 0
	}
	for _, c := range []struct {
		flag      string
		value, to *float64
	}{{"rtol", &s.rtol, &set.RTol}, {"atol", &s.atol, &set.ATol}, {"step", &s.step, &set.Step}} {
		if f.Changed(c.flag) {
			if *c.to = *c.value; !(*c.to >= 0) || math.IsInf(*c.to, 0) {
				return set, usagef("--%s is %g; give a finite number of at least 0", c.flag, *c.to)
			}
		}
	}
	if set.Step == 0 && !set.Method.Adaptive() {
		return set, usagef("--method %v has no error estimate to choose steps by; give their size by --step, or an adaptive method such as tsit5", set.Method)
	}
	return set, nil
}
