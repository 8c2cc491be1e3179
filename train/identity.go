package train

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// Identity describes the right-hand side, the data and the settings, for
// checkpoints.
func (t *Trajectories[T]) Identity() (map[string]string, error) {
	return identify(t.s, t.adj, t.set, t.data.Times[0], t.data.sum())
}

// identify describes a fit of s's right-hand side, which is defined at the time `at`.
func identify[T backend.Float](solve *solver.Solver[T], adj *adjoint.Adjoint[T], set TrajectorySettings, at float64, data string) (map[string]string, error) {
	s := solve.Settings()
	method := s.Tableau.Name
	s.Tableau, s.Progress = nil, nil
	how := "as the solver"
	if own := set.Adjoint.Solver; own != nil {
		set := *own
		set.Progress = nil
		how = fmt.Sprintf("%+v", set)
	}
	if set.Adjoint.StepSizes {
		how += ", step sizes differentiated"
	}
	f, err := probe(solve, at)
	return map[string]string{
		"right-hand side": f,
		"solver":          fmt.Sprintf("%s %+v", method, s),
		"adjoint":         fmt.Sprintf("%v, %s, full norm %v", adj.Method(), how, set.Adjoint.FullNorm),
		"loss":            fmt.Sprintf("%+v", set.Loss),
		"learned z0":      fmt.Sprint(set.LearnZ0),
		"data":            data,
	}, err
}

// sum is the SHA-256 sum of all of the data.
func (d *Data[T]) sum() string {
	return checksumOf(d.Times, d.Z0, d.Targets, d.Labels, d.Weights)
}

// checksumOf is the SHA-256 sum of slices of numbers.
func checksumOf(slices ...any) string {
	h := sha256.New()
	for _, x := range slices {
		fmt.Fprintf(h, "%T %d ", x, binary.Size(x))
		if err := binary.Write(h, binary.LittleEndian, x); err != nil {
			panic("train: data that cannot be written") // slices of numbers always can
		}
	}
	return fmt.Sprintf("sha256 %x", h.Sum(nil))
}

// probe describes the right-hand side by its dimensions and one value, with
// parameters and a state that are not special. The digits are those that every
// machine agrees on. It is probed at a time of the data: one that reads a signal is not
// defined everywhere.
func probe[T backend.Float](s *solver.Solver[T], at float64) (text string, err error) {
	theta, z, dz := make([]T, s.NumParams()), make([]T, s.Dim()), make([]T, s.Dim())
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
	saved, err := s.Params()
	if err != nil {
		return "", err
	}
	err = s.Exclusive(func(dev backend.Backend[T], f backend.Field[T], _ *solver.Version) error {
		clk, err := dev.NewClock(1)
		if err != nil {
			return err
		}
		x, err := dev.NewVec(1, 1, len(z))
		if err != nil {
			return err
		}
		defer dev.Free(x)
		y, err := dev.NewVec(1, 1, len(z))
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
	return fmt.Sprintf("%d components, %d parameters, probed %.*g", len(z), len(theta), digits, dz), err
}
