package simd

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/seed-5f5774c8/neuralode/mlp"
)

func activationList() (all []mlp.Activation) {
	for a := mlp.Identity; a <= mlp.Sin; a++ {
		all = append(all, a)
	}
	return all
}

// samples are numbers of every exponent, dense around 0 and where formulas change, and
// what is not finite.
func samples[T Float](rng *rand.Rand) (x []T) {
	least, most := -1074, 1023
	if elemSize[T]() == 4 {
		least, most = -149, 127
	}
	for e := least; e <= most; e++ {
		for range 8 {
			v := T(math.Ldexp(1+rng.Float64(), e))
			x = append(x, v, -v)
		}
	}
	for v := -120.0; v <= 120; v += 0.01 {
		x = append(x, T(v+0.001*rng.Float64()))
	}
	for range 20000 {
		x = append(x, T(rng.NormFloat64()))
	}
	if elemSize[T]() == 8 {
		for v := -760.0; v <= -700; v += 0.01 {
			x = append(x, T(v), T(-v))
		}
	}
	big := math.MaxFloat64
	if elemSize[T]() == 4 {
		big = math.MaxFloat32
	}
	return append(x, 0, T(math.Copysign(0, -1)), T(math.Inf(1)), T(math.Inf(-1)), T(math.NaN()), -T(math.NaN()), T(big), -T(big))
}

// ulp is the distance of numbers of type T at x.
func ulp[T Float](x float64) float64 {
	x = math.Abs(x)
	if elemSize[T]() == 4 {
		return max(math.Ldexp(1, -149), float64(math.Nextafter32(float32(x), math.MaxFloat32))-float64(float32(x)))
	}
	return math.Nextafter(x, math.MaxFloat64) - x
}

func TestActivate_Accuracy(t *testing.T) {
	t.Run("float32", activateAccuracy[float32])
	t.Run("float64", activateAccuracy[float64])
}

func activateAccuracy[T Float](t *testing.T) {
	forLevels(t, func(t *testing.T) {
		x := samples[T](rand.New(rand.NewPCG(1, 1)))
		y, d := make([]T, len(x)), make([]T, len(x))
		for _, act := range activationList() {
			Activate(act, y, x)
			for i := range d {
				d[i] = 1
			}
			TimesSlope(act, d, x, y)
			var worst, worstSlope, at, slopeAt float64
			for i, v := range x {
				want, slope := act.Both(float64(v))
				if act == mlp.GELU {
					want = gelu(float64(v))
				}
				if tw := T(want); math.IsInf(float64(tw), 0) {
					want = float64(tw)
				}
				if bad(float64(y[i]), want) || bad(float64(d[i]), slope) {
					t.Errorf("%v(%v) = %v, slope %v, want %v and %v", act, v, y[i], d[i], want, slope)
					continue
				}
				if want-want != 0 || slope-slope != 0 {
					continue
				}
				if e := math.Abs(float64(y[i])-want) / ulp[T](want) / allowed[T](act, float64(v), want); e > worst {
					worst, at = e, float64(v)
				}
				if e := math.Abs(float64(d[i])-slope) / ulp[T](max(1, math.Abs(slope))); e > worstSlope {
					worstSlope, slopeAt = e, float64(v)
				}
			}
			t.Logf("%v: %.2f ulp at %g; slope %.2f of 1 at %g", act, worst, at, worstSlope, slopeAt)
			if worst > 5 || worstSlope > 4 {
				t.Errorf("%v: %.2f ulp at %g; slope %.2f of 1 at %g", act, worst, at, worstSlope, slopeAt)
			}
		}
	})
}

// allowed is 1, or more where the doc comment of Activate says so.
func allowed[T Float](act mlp.Activation, x, y float64) float64 {
	switch act {
	case mlp.SiLU, mlp.GELU: // σ(x) may be a denormal number, or for GELU the reference's erfc
		n := 1 + math.Abs(x)*ulp[T](0)/ulp[T](y)/4
		if act == mlp.GELU {
			n += 0.2
		}
		if act == mlp.GELU && Level() == "go" {
			n += x * x / 2 // mlp's rounding of erfc's argument
		}
		return n
	case mlp.GELUTanh:
		return 1 + math.Abs(0.0713548162726009*x*x*x) + 1.6*math.Abs(x)
	}
	return 1
}

// gelu is mlp's, without what the tail makes of the rounding of its erfc's argument u: a
// factor of 1 + δ·(ln erfc)'(u), with δ what the argument lacks.
func gelu(x float64) float64 {
	const low = -9.667293313452913e-17 // what √2 in float64 lacks
	u := -x / math.Sqrt2
	e := math.Erfc(u)
	if e == 0 || e != e || math.IsInf(x, 0) {
		return mlp.GELU.Value(x)
	}
	delta := (math.FMA(-u, math.Sqrt2, -x) - u*low) / math.Sqrt2
	return x * 0.5 * (e - delta*2/math.SqrtPi*math.Exp(-u*u))
}

// TestActivate_MatchesHighPrecision compares with mlp's table of 50 digits.
func TestActivate_MatchesHighPrecision(t *testing.T) {
	b, err := os.ReadFile("../../mlp/testdata/activations.json")
	if err != nil {
		t.Fatal(err)
	}
	var table map[string][][3]float64
	if err := json.Unmarshal(b, &table); err != nil {
		t.Fatal(err)
	}
	forLevels(t, func(t *testing.T) {
		for name, rows := range table {
			act, err := mlp.ParseActivation(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range rows {
				x, want, slope := row[0], row[1], row[2]
				y, d := []float64{0}, []float64{1}
				Activate(act, y, []float64{x})
				TimesSlope(act, d, []float64{x}, y)
				if e := math.Abs(y[0]-want) / ulp[float64](want) / allowed[float64](act, x, want); e > 5 && Level() != "go" {
					t.Errorf("%v(%g) = %g, want %g: %.1f ulp", act, x, y[0], want, e)
				}
				if e := math.Abs(d[0]-slope) / ulp[float64](max(1, math.Abs(slope))); e > 4 {
					t.Errorf("%v'(%g) = %g, want %g", act, x, d[0], slope)
				}
			}
		}
	})
}

// bad reports that one of them is not finite in a way of its own.
func bad(got, want float64) bool {
	if math.IsNaN(want) {
		return !math.IsNaN(got)
	}
	if math.IsInf(want, 0) || math.IsInf(got, 0) || math.IsNaN(got) {
		return got != want
	}
	return false
}

// An element's result does not depend on its place, nor on the width of vectors.
func TestActivate_PlaceDoesNotMatter(t *testing.T) {
	t.Run("float32", activatePlace[float32])
	t.Run("float64", activatePlace[float64])
}

func activatePlace[T Float](t *testing.T) {
	x := samples[T](rand.New(rand.NewPCG(1, 1)))
	x = slices.DeleteFunc(x, func(v T) bool { return v != v })
	for _, act := range activationList() {
		var first []T
		forLevels(t, func(t *testing.T) {
			y, one := make([]T, len(x)), make([]T, 1)
			Activate(act, y, x)
			for i := 0; i < len(x); i += 7 {
				Activate(act, one, x[i:i+1])
				if one[0] != y[i] && one[0] == one[0] {
					t.Fatalf("%v(%v) = %v alone, %v in company", act, x[i], one[0], y[i])
				}
			}
			inPlace := slices.Clone(x)
			Activate(act, inPlace, inPlace)
			for i, v := range inPlace {
				if v != y[i] && v == v {
					t.Fatalf("%v(%v) = %v in place, else %v", act, x[i], v, y[i])
				}
			}
			if Level() == "go" {
				return
			}
			if first == nil {
				first = y
			}
			for i, v := range y {
				if v != first[i] && v == v {
					t.Fatalf("%v(%v) = %v and %v", act, x[i], v, first[i])
				}
			}
		})
	}
}

func BenchmarkActivate(b *testing.B) {
	b.Run("f32", benchActivate[float32])
	b.Run("f64", benchActivate[float64])
}

func benchActivate[T Float](b *testing.B) {
	x := random[T](rand.New(rand.NewPCG(1, 2)), 2048)
	y, d := make([]T, len(x)), make([]T, len(x))
	for _, act := range activationList() {
		for name, f := range map[string]func(){
			"value": func() { Activate(act, y, x) },
			"slope": func() { TimesSlope(act, d, x, y) },
		} {
			b.Run(act.String()+"/"+name, func(b *testing.B) {
				Activate(act, y, x)
				copy(d, x)
				b.ReportMetric(fastest(b, f, func() { copy(d, x) })*1e9/float64(len(x)), "ns/element")
			})
		}
	}
}
