package train

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Identity describes the right-hand side, the data and the settings, for
// checkpoints.
func (t *Trajectories[T]) Identity() (map[string]string, error) {
	s := t.s.Settings()
	method := s.Tableau.Name
	s.Tableau, s.Progress = nil, nil
	adj := "as the solver"
	if own := t.set.Adjoint.Solver; own != nil {
		set := *own
		set.Progress = nil
		adj = fmt.Sprintf("%+v", set)
	}
	if t.set.Adjoint.StepSizes {
		adj += ", step sizes differentiated"
	}
	f, err := t.probe()
	return map[string]string{
		"right-hand side": f,
		"solver":          fmt.Sprintf("%s %+v", method, s),
		"adjoint":         fmt.Sprintf("%v, %s, full norm %v", t.adj.Method(), adj, t.set.Adjoint.FullNorm),
		"loss":            fmt.Sprintf("%+v", t.set.Loss),
		"learned z0":      fmt.Sprint(t.set.LearnZ0),
		"data":            t.data.sum(),
	}, err
}

// sum is the SHA-256 sum of all of the data.
func (d *Data[T]) sum() string {
	h := sha256.New()
	for _, x := range []any{d.Times, d.Z0, d.Targets, d.Labels, d.Weights} {
		fmt.Fprintf(h, "%T %d ", x, binary.Size(x))
		if err := binary.Write(h, binary.LittleEndian, x); err != nil {
			panic("train: data that cannot be written") // slices of numbers always can
		}
	}
	return fmt.Sprintf("sha256 %x", h.Sum(nil))
}

// probe describes the right-hand side by its dimensions and one value, with
// parameters and a state that are not special. The digits are those that every
// machine agrees on.
func (t *Trajectories[T]) probe() (text string, err error) {
	theta, z, dz := make([]T, t.p), make([]T, t.dim), make([]T, t.dim)
	for i := range theta {
		theta[i] = T(math.Sin(float64(i + 1)))
	}
	for i := range z {
		z[i] = T(0.5 * math.Cos(float64(i)))
	}
	digits := 6
	if unsafe.Sizeof(z[0]) == 4 {
		digits = 3
	}
	at := t.data.Times[0] // a right-hand side that reads a signal is not defined everywhere
	saved, err := t.s.Params()
	if err != nil {
		return "", err
	}
	err = t.s.Exclusive(func(dev backend.Backend[T], f backend.Field[T], _ *solver.Version) error {
		clk, err := dev.NewClock(1)
		if err != nil {
			return err
		}
		x, err := dev.NewVec(1, 1, t.dim)
		if err != nil {
			return err
		}
		defer dev.Free(x)
		y, err := dev.NewVec(1, 1, t.dim)
		if err != nil {
			return err
		}
		defer dev.Free(y)
		dev.Upload(f.Params(), theta)
		defer dev.Upload(f.Params(), saved)
		dev.Upload(x, z)
		dev.Start(clk, backend.Span{T0: at, Stops: []float64{at + 1}, H0: 1})
		f.Eval(y, backend.At{Clock: clk}, x)
		return dev.Download(dz, y)
	})
	return fmt.Sprintf("%d components, %d parameters, probed %.*g", t.dim, t.p, digits, dz), err
}
