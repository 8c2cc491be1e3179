//go:build cuda && cgo && linux && amd64

package gpu

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// tensorFormats are those of tensor cores, with the distance of the numbers behind 1, as
// epsilon. That of TF32x3 is float32's.
var tensorFormats = []struct {
	p    Precision
	unit float64
}{{TF32x3, 1.0 / (1 << 23)}, {TF32, 1.0 / (1 << 10)}, {BF16, 1.0 / (1 << 7)}}

// openWith skips where there is no device for the precision.
func openWith(t testing.TB, p Precision) *Backend[float32] {
	t.Helper()
	openOrSkip[float32](t)
	b, err := Open[float32](Options{Precision: p})
	if errors.Is(err, backend.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// reference computes a case on the CPU in float64.
func reference(t testing.TB, c netCase, o operands, sel backend.Rows) results {
	s := newSession[float64](t, cpu.New[float64](), c, c.theta(3))
	defer s.close()
	return s.run(o, sel, all, false)
}

// errorsOf are the norms of the errors over the norms of the references.
func errorsOf(got, want results) map[string]float64 {
	refs, rel := map[string][]float64{}, map[string]float64{}
	want.each(func(name string, x []float64) { refs[name] = x })
	got.each(func(name string, x []float64) {
		var errs, norm float64
		for i, ref := range refs[name] {
			errs, norm = errs+(x[i]-ref)*(x[i]-ref), norm+ref*ref
		}
		rel[name] = math.Sqrt(errs / norm)
	})
	return rel
}

// TestPrecision_Errors bounds the relative errors of every format: those of TF32 and BF16
// from below too, so that they are seen to be used. Operands are rounded independently
// of each other; so the relative error of a layer is about that of a rounding. That of
// TF32x3 is compared with Float32's.
func TestPrecision_Errors(t *testing.T) {
	for _, f := range tensorFormats {
		t.Run(f.p.String(), func(t *testing.T) {
			t.Parallel()
			b, scalar := openWith(t, f.p), openOrSkip[float32](t)
			for _, width := range []int{64, 256, 512} {
				c := netCase{spec(mlp.Tanh, mlp.TimeNone, mlp.InputIdentity, width, width, width), 16, 1, chosen}
				o := newOperands(c, 5)
				clear(o.g)
				want := reference(t, c, o, backend.Running)
				device := func(b *Backend[float32]) map[string]float64 {
					s := newSession(t, b, c, c.theta(3))
					defer s.close()
					return errorsOf(s.run(o, backend.Running, all, false), want)
				}
				got, float := device(b), device(scalar)
				for _, name := range []string{"Eval", "VJP.AZ", "VJP.G", "JVP.JV"} {
					t.Logf("width %d: %-7s %.1e, Float32 %.1e", width, name, got[name], float[name])
					least, most := f.unit/8, f.unit
					if f.p == TF32x3 {
						least, most = 0, 2*float[name]
					}
					if e := got[name]; !(e >= least && e <= most) {
						t.Errorf("width %d: the error of %s is %v, not within %v and %v", width, name, e, least, most)
					}
				}
			}
		})
	}
}

// TestPrecision_MatchesCPU runs the verbs on shapes that change how memory is read and
// on nets of which some layers are too narrow for tensor cores, by one lane and by many.
func TestPrecision_MatchesCPU(t *testing.T) {
	for _, f := range tensorFormats {
		t.Run(f.p.String(), func(t *testing.T) {
			t.Parallel()
			b := openWith(t, f.p)
			for i, widths := range [][]int{{2, 37, 41, 2}, {32, 32}, {33, 130, 33}, {96, 160, 96}} {
				for _, n := range []struct{ rows, lanes int }{{1, 1}, {67, 67}, {130, 1}} {
					c := netCase{spec(mlp.SiLU, mlp.Time(i%3), mlp.Input(i%2), widths...), n.rows, n.lanes, chosen}
					o := newOperands(c, 5)
					s := newSession(t, b, c, c.theta(3))
					if i == 3 {
						s.f.(*bound[float32]).sms = 1 // large tiles
					}
					if f := s.f.(*bound[float32]); !f.tensor || f.narrow.forward.small != nil {
						t.Errorf("%v: not on tensor cores", c)
					}
					for _, sel := range []backend.Rows{backend.Running, backend.Accepted} {
						compareIn(t, f.unit, c, s.run(o, sel, all, false), reference(t, c, o, sel))
					}
					s.close()
				}
			}
		})
	}
}

// TestPrecision_BatchIndependent is TestField_BatchIndependent on tensor cores.
func TestPrecision_BatchIndependent(t *testing.T) {
	for _, f := range tensorFormats {
		t.Run(f.p.String(), func(t *testing.T) {
			t.Parallel()
			batchIndependent(t, openWith(t, f.p), []int{35, 130, 35})
		})
	}
}

// What is not a number stays in its row. TF32 and BF16 treat infinities as Float32 does;
// TF32x3 makes NaN of them.
func TestPrecision_NotFinite(t *testing.T) {
	for _, f := range tensorFormats {
		b := openWith(t, f.p)
		for _, value := range []float64{math.NaN(), math.Inf(1)} {
			c := netCase{spec(mlp.ReLU, mlp.TimeNone, mlp.InputIdentity, 32, 32), 5, 1, chosen}
			o := newOperands(c, 5)
			o.z[3*32] = value
			s := newSession(t, b, c, c.theta(3))
			got, want := s.run(o, backend.Running, all, false), reference(t, c, o, backend.Running)
			s.close()
			for i, x := range got.eval {
				ref := want.eval[i]
				if i/32 == 3 && f.p == TF32x3 {
					ref = math.NaN()
				}
				same := math.IsNaN(x) && math.IsNaN(ref) || x == ref || math.Abs(x-ref) <= 32*f.unit
				if !same {
					t.Errorf("%v, %v: f[%d] = %v, want %v", f.p, value, i, x, ref)
				}
			}
		}
	}
}

// TestOpen_Precision reads the errors of Open.
func TestOpen_Precision(t *testing.T) {
	openOrSkip[float32](t)
	if _, err := Open[float64](Options{Precision: TF32}); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "float64") {
		t.Errorf("in float64: %v", err)
	}
	for _, p := range []Precision{-1, BF16 + 1} {
		if _, err := Open[float32](Options{Precision: p}); err == nil || !strings.Contains(err.Error(), "give Float32, TF32x3, TF32 or BF16") {
			t.Errorf("%v: %v", p, err)
		}
	}
	b, err := Open[float32](Options{Precision: BF16})
	if err == nil {
		if c := b.d.Info().Capability(); c < tensorCapability {
			t.Errorf("BF16 is taken by compute capability %d", c)
		}
		b.Close()
	} else if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "takes compute capability 8.0") {
		t.Error(err)
	}
	t.Log(err)
}

// The same on an older device, if the driver is a stand-in that can be one.
func TestOpen_PrecisionOnOldDevice(t *testing.T) {
	openOrSkip[float32](t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestOpen_Precision$", "-test.v")
	cmd.Env = append(os.Environ(), "CUDASIM_SM=70")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "has 7.0") {
		t.Skip("the device does not become an older one")
	}
}

// TestPrecision_Counters: results are stored without waste, and there are no bank
// conflicts. Copies of an operand stored by outputs do not count: the stand-in pairs
// what threads copy in the order in which they wait for it.
func TestPrecision_Counters(t *testing.T) {
	if os.Getenv("CUDASIM_SEED") != "" {
		t.Skip("the stand-in finds bank conflicts between lanes in the order in which it runs them")
	}
	openWith(t, TF32)
	n := 0
	for name, c := range profile(t, "TestPrecision_ForCounters") {
		if !strings.HasPrefix(name, "mlp_tf32") && !strings.HasPrefix(name, "mlp_bf16") {
			continue
		}
		n++
		if c.Load.Efficiency < 0.95 || c.Store.Efficiency < 0.95 {
			t.Errorf("%s: efficiency of loads %v, of stores %v", name, c.Load.Efficiency, c.Store.Efficiency)
		}
		for _, s := range c.Sites {
			counts := s.Op == "load" || strings.Contains(name, "_weights_")
			if s.Space == "shared" && counts && s.Replays > 0 {
				t.Errorf("%s: %d replays of the %s in line %d", name, s.Replays, s.Op, s.Line)
			}
		}
	}
	if want := 24; n != want {
		t.Errorf("%d kernels ran, want %d", n, want)
	}
}

func TestPrecision_ForCounters(t *testing.T) {
	profiling(t)
	for _, f := range tensorFormats {
		b := openWith(t, f.p)
		for _, sms := range []int{100, 1} { // small tiles, large ones
			c := netCase{spec(mlp.Tanh, mlp.TimeNone, mlp.InputCube, 96, 160, 96), 128, 1, chosen}
			if sms > 1 {
				c.spec = spec(mlp.Tanh, mlp.TimeNone, mlp.InputCube, 64, 64)
			}
			s := newSession(t, b, c, c.theta(3))
			s.f.(*bound[float32]).sms = sms
			s.run(newOperands(c, 5), backend.Running, all, true)
			s.close()
		}
	}
}
