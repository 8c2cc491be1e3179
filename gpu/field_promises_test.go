//go:build cuda && cgo && linux && amd64

package gpu

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// TestField_VJPSubsets wants every subset of the outputs, each the same as with all.
func TestField_VJPSubsets(t *testing.T) {
	b := openOrSkip[float32](t)
	for _, way := range []path{chosen, layered} {
		for _, time := range []mlp.Time{mlp.TimeNone, mlp.TimeInput, mlp.TimeEveryLayer} {
			c := netCase{spec(mlp.SiLU, time, mlp.InputCube, 3, 10, 3), 35, 35, way}
			s := newSession(t, b, c, c.theta(3))
			o := newOperands(c, 5)
			full := s.run(o, backend.Running, all, true)
			for want := range all {
				r := s.run(o, backend.Running, want, true)
				for bit, x := range [][2][]float64{{r.dz, full.dz}, {r.az, full.az}, {r.at, full.at}, {r.g, full.g}} {
					if want>>bit&1 != 0 && !sameBits(x[0], x[1]) {
						t.Errorf("%v: output %d of the subset %04b differs", c, bit, want)
					}
				}
			}
			s.close()
		}
	}
}

func sameBits(x, y []float64) bool {
	return slices.EqualFunc(x, y, func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })
}

// TestField_BatchIndependent: a row has the same bits alone, in a batch, with large
// tiles and with small ones, and in a rerun; a gradient in a rerun.
func TestField_BatchIndependent(t *testing.T) {
	bothPrecisions(t, testBatchIndependent[float32], testBatchIndependent[float64])
}

func testBatchIndependent[T backend.Float](t *testing.T) {
	batchIndependent(t, openOrSkip[T](t), []int{3, 41, 17, 3}, []int{2, 130, 2})
}

func batchIndependent[T backend.Float](t *testing.T, b *Backend[T], nets ...[]int) {
	for _, widths := range nets {
		c := netCase{spec(mlp.GELU, mlp.TimeEveryLayer, mlp.InputIdentity, widths...), 150, 1, chosen}
		d := widths[0]
		theta, o := c.theta(3), newOperands(c, 5)
		s := newSession(t, b, c, theta)
		whole, again := s.run(o, backend.Running, all, false), s.run(o, backend.Running, all, false)
		s.f.(*bound[T]).sms = 1 // as if the device were full: large tiles
		large := s.run(o, backend.Running, all, false)
		s.close()
		refs := [][]float64{}
		again.each(func(_ string, x []float64) { refs = append(refs, x) })
		i := 0
		whole.each(func(name string, x []float64) {
			if !sameBits(x, refs[i]) {
				t.Errorf("%v: %s differs in a rerun", c, name)
			}
			i++
		})
		large.g = whole.g // a sum over rows may depend on how many there are
		refs, i = refs[:0], 0
		large.each(func(_ string, x []float64) { refs = append(refs, x) })
		whole.each(func(name string, x []float64) {
			if !sameBits(x, refs[i]) {
				t.Errorf("%v: %s differs between tiles", c, name)
			}
			i++
		})
		for _, row := range []int{0, 31, 32, 149} {
			one := c
			one.rows = 1
			s := newSession(t, b, one, theta)
			x := o
			for _, v := range []*[]float64{&x.z, &x.a, &x.v, &x.dz} {
				*v = (*v)[row*d : (row+1)*d]
			}
			r := s.run(x, backend.Running, all, false)
			s.close()
			r.g = nil
			refs, i = refs[:0], 0
			whole.each(func(_ string, x []float64) { refs = append(refs, x) })
			r.each(func(name string, x []float64) {
				n := len(x)
				if n > 0 && !sameBits(x, refs[i][row*n:(row+1)*n]) {
					t.Errorf("%v: %s of row %d alone differs from that in the batch", c, name, row)
				}
				i++
			})
		}
	}
}

// TestField_NotFinite: NaN and Inf go where the CPU has them go, and no further: 0·NaN
// is NaN, rows that are not selected do not count, and nothing comes from padding.
func TestField_NotFinite(t *testing.T) {
	b := openOrSkip[float32](t)
	for _, widths := range [][]int{{3, 5, 3}, {3, 130, 3}} {
		for _, bad := range []string{"z", "a", "v", "weight", "bias"} {
			for _, value := range []float64{math.NaN(), math.Inf(1)} {
				c := netCase{spec(mlp.ReLU, mlp.TimeInput, mlp.InputIdentity, widths...), 40, 40, chosen}
				theta, o := c.theta(3), newOperands(c, 5)
				clear(o.a[3*9 : 3*10]) // of a selected row: 0·Inf
				for i := range o.g {
					o.g[i] = 0
				}
				switch bad {
				case "z": // of a selected row, and of one that is not
					o.z[3*9], o.z[3*10+1] = value, value
				case "a":
					o.a[3*10+1] = value
				case "v":
					o.v[3*9+2] = value
				case "weight":
					theta[2] = value
				case "bias":
					theta[len(theta)-1] = value
				}
				got, want := newSession(t, b, c, theta), newSession[float64](t, cpu.New[float64](), c, theta)
				compare[float32](t, c, got.run(o, backend.Running, all, false), want.run(o, backend.Running, all, false))
				got.close()
				want.close()
			}
		}
	}
}

// TestBind_Refuses reads the errors of Bind.
func TestBind_Refuses(t *testing.T) {
	b := openOrSkip[float32](t)
	wide := must(mlp.New[float32](mlp.Dense(mlp.Tanh, 2, 3), mlp.Init{}, 1))
	huge := mlp.Dense(mlp.Tanh, 1, 1<<24, 1)
	short := &mlp.Model[float32]{Spec: mlp.Dense(mlp.Tanh, 2, 2), Theta: make([]float32, 5)}
	for _, c := range []struct {
		sys         backend.System[float32]
		unsupported bool
		text        string
	}{
		{&field.Custom[float32]{N: 1}, true, "use the CPU backend"},
		{wide, true, "as many outputs as inputs"},
		{short, false, "Theta has length 5"},
		{&mlp.Model[float32]{Spec: huge, Theta: make([]float32, huge.NumParams())}, true, "layer 0 has more than 16777215 units"},
	} {
		_, err := b.Bind(c.sys)
		if err == nil || !strings.Contains(err.Error(), c.text) || errors.Is(err, backend.ErrUnsupported) != c.unsupported {
			t.Errorf("Bind of a %T: %v", c.sys, err)
		}
	}
	if n := b.MemoryUsed(); n != 0 {
		t.Errorf("%d bytes are in use after failed calls of Bind", n)
	}
}

// TestField_Memory: scratch memory is counted, used again, and given back.
func TestField_Memory(t *testing.T) {
	b := openOrSkip[float64](t)
	for _, widths := range [][]int{{3, 5, 3}, {3, 130, 3}} {
		before := b.MemoryUsed()
		c := netCase{spec(mlp.Tanh, mlp.TimeInput, mlp.InputCube, widths...), 40, 40, chosen}
		s := newSession(t, b, c, c.theta(3))
		o := newOperands(c, 5)
		z, a, dz, g := s.vec(o.z, 3), s.vec(o.a, 3), s.vec(o.dz, 3), s.vec(o.g, len(o.g))
		bound := b.MemoryUsed()
		at := backend.At{Clock: s.clk}
		verbs := func() {
			s.f.Eval(dz, at, z)
			s.f.VJP(at, backend.VJP[float64]{Z: z, A: a, AZ: dz, Alpha: 1, G: g, W: 1})
			s.f.JVP(at, backend.JVP[float64]{Z: z, V: a, JV: dz})
		}
		verbs()
		used := b.MemoryUsed()
		if used <= bound {
			t.Errorf("%v: scratch memory is not counted", c)
		}
		if n := testing.AllocsPerRun(5, verbs); n > 0 {
			t.Errorf("%v: %v allocations a run", c, n)
		}
		if n := b.MemoryUsed(); n != used {
			t.Errorf("%v: memory grew from %d to %d bytes", c, used, n)
		}
		s.f.Close()
		s.f.Close()
		s.f.Eval(dz, at, z)
		if err := b.Sync(); !errors.Is(err, backend.ErrClosed) {
			t.Errorf("%v: a verb of a closed field: %v", c, err)
		}
		s.close()
		if n := b.MemoryUsed(); n != before {
			t.Errorf("%v: %d bytes are in use after Close", c, n-before)
		}
	}
}
