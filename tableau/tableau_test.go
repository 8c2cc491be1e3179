package tableau

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestByName(t *testing.T) {
	names := strings.Fields("euler midpoint heun2 ralston2 heun3 rk4 rk4_38 ssprk3 heun_euler21 fehlberg12 bosh3 dopri5 dopri5_shampine tsit5 dopri8 vern7")
	if len(All()) != len(names) {
		t.Errorf("All has %d methods, want %d", len(All()), len(names))
	}
	for _, name := range names {
		m, err := ByName(name)
		if err != nil || m.Name != name {
			t.Errorf("ByName(%q): %v", name, err)
		}
		if m.Source == "" || m.Dense.Source == "" {
			t.Errorf("%s has no source", name)
		}
	}
	_, err := ByName("foo")
	if want := `tableau: method "foo" unknown; use one of euler, midpoint,`; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// What a stepping loop reads off each method.
func TestProperties(t *testing.T) {
	for _, c := range []struct {
		m                     *Tableau
		stages, order, extra  int
		exponent              float64
		dense                 int
		adaptive, fsal, atEnd bool
	}{
		{Euler(), 1, 1, 1, 2, 1, false, false, true},
		{Midpoint(), 2, 2, 1, 3, 2, false, false, true},
		{Heun2(), 2, 2, 1, 3, 2, false, false, true},
		{Ralston2(), 2, 2, 1, 3, 2, false, false, true},
		{Heun3(), 3, 3, 1, 4, 3, false, false, true},
		{SSPRK3(), 3, 3, 1, 4, 3, false, false, true},
		{RK4(), 4, 4, 1, 5, 3, false, false, true},
		{RK4ThreeEighths(), 4, 4, 1, 5, 3, false, false, true},
		{HeunEuler21(), 2, 2, 1, 2, 2, true, false, true},
		{Fehlberg12(), 3, 2, 1, 2, 2, true, false, true},
		{Bosh3(), 4, 3, 0, 3, 3, true, true, false},
		{Dopri5(), 7, 5, 0, 5, 4, true, true, false},
		{Dopri5Shampine(), 7, 5, 0, 5, 4, true, true, false},
		{Tsit5(), 7, 5, 0, 5, 4, true, true, false},
		{Dopri8(), 12, 8, 4, 8, 7, true, false, true}, // 8: FACC1 = 1/8 in DOP853
		{Vern7(), 10, 7, 6, 7, 6, true, false, true},
	} {
		m := c.m
		if m.Stages() != c.stages || m.Order != c.order || len(m.Dense.ExtraC) != c.extra ||
			m.ErrorExponent() != c.exponent || m.Dense.Order != c.dense ||
			m.Adaptive() != c.adaptive || m.FSAL != c.fsal || m.EndStage() != c.atEnd || !m.Dense.C1 {
			t.Errorf("%s: %d stages, order %d, %d extra, exponent %g, dense order %d, adaptive %t, FSAL %t, end stage %t, C1 %t",
				m.Name, m.Stages(), m.Order, len(m.Dense.ExtraC), m.ErrorExponent(), m.Dense.Order, m.Adaptive(), m.FSAL, m.EndStage(), m.Dense.C1)
		}
	}
}

func TestClone_SharesNothing(t *testing.T) {
	for _, m := range All() {
		c := m.Clone()
		if !reflect.DeepEqual(c, m) {
			t.Errorf("%s: the clone differs", m.Name)
		}
		for _, row := range coefficients(c) {
			for _, co := range row {
				*co.at = math.NaN()
			}
		}
		if err := m.Check(); err != nil {
			t.Errorf("after its clone was overwritten: %v", err)
		}
	}
}

// weights returns b_j(x) of all stages.
func weights(m *Tableau, x float64) []float64 {
	w := make([]float64, len(m.Dense.P))
	m.Weights(w, x)
	return w
}

// near compares weights up to the rounding errors of sums of their terms.
func near(t *testing.T, what string, m *Tableau, got, want []float64) {
	t.Helper()
	for j := range want {
		size := 1.0
		for _, p := range m.Dense.P[j] {
			size += math.Abs(p)
		}
		if d := math.Abs(got[j] - want[j]); !(d <= 8*0x1p-52*size) {
			t.Errorf("%s: %s: weight of stage %d is %.17g, want %.17g, off by %.2g", m.Name, what, j, got[j], want[j], d)
		}
	}
}

func TestWeights_AtTheEnds(t *testing.T) {
	for _, m := range All() {
		want := make([]float64, len(m.Dense.P))
		near(t, "x = 0", m, weights(m, 0), want)
		copy(want, m.B)
		near(t, "x = 1", m, weights(m, 1), want)
	}
}

// The interpolant of DOP853 as CONTD8 has it, nested in x and 1-x.
func TestDopri8_InterpolantIsCONTD8(t *testing.T) {
	m := Dopri8()
	for _, x := range []float64{0.01, 0.25, 0.5, 0.9, 0.999} {
		want := make([]float64, 16)
		for j := range want {
			var b, first, last float64
			if j < 12 {
				b = m.B[j]
			}
			if j == 0 {
				first = 1
			}
			if j == 12 {
				last = 1
			}
			d := contd8D
			inner := d[0][j] + x*(d[1][j]+(1-x)*(d[2][j]+x*d[3][j]))
			want[j] = x * (b + (1-x)*(first-b+x*(2*b-first-last+(1-x)*inner)))
		}
		near(t, "CONTD8", m, weights(m, x), want)
	}
}

// The interpolant of DOPRI5 as CONTD5 has it (HNW II.6), and its weights at x = 1/2
// as Shampine 1986 gives them, which are also torchdiffeq's.
func TestDopri5_InterpolantIsCONTD5(t *testing.T) {
	d := [7]float64{-12715105075.0 / 11282082432, 0, 87487479700.0 / 32700410799, -10690763975.0 / 1880347072,
		701980252875.0 / 199316789632, -1453857185.0 / 822651844, 69997945.0 / 29380423}
	half := []float64{6025192743.0 / 30085553152 / 2, 0, 51252292925.0 / 65400821598 / 2, -2691868925.0 / 45128329728 / 2,
		187940372067.0 / 1594534317056 / 2, -1776094331.0 / 19743644256 / 2, 11237099.0 / 235043384 / 2}
	for _, m := range []*Tableau{Dopri5(), Dopri5Shampine()} {
		for _, x := range []float64{0.01, 0.25, 0.5, 0.9, 0.999} {
			want := make([]float64, 7)
			for j, b := range m.B {
				var first, last float64
				if j == 0 {
					first = 1
				}
				if j == 6 {
					last = 1
				}
				want[j] = x * (b + (1-x)*(first-b+x*(2*b-first-last+(1-x)*d[j])))
			}
			near(t, "CONTD5", m, weights(m, x), want)
		}
		near(t, "Shampine's midpoint", m, weights(m, 0.5), half)
	}
}

// The two sets of error weights of Dormand and Prince's pair are proportional.
func TestDopri5_ShampinesEstimateIsTwoThirds(t *testing.T) {
	a, b := Dopri5(), Dopri5Shampine()
	for j := range a.E {
		if d := math.Abs(b.E[j] - a.E[j]*2/3); d > 0x1p-55 {
			t.Errorf("E[%d]: %g and %g", j, a.E[j], b.E[j])
		}
	}
}

// The interpolant of Tsit5 in the factors that Tsitouras 2011 gives, to 16 digits.
func TestTsit5_InterpolantAsFactors(t *testing.T) {
	m := Tsit5()
	for _, x := range []float64{0.01, 0.25, 0.5, 0.9, 0.999} {
		near(t, "Tsitouras' factors", m, weights(m, x), []float64{
			-1.0530884977290216 * x * (x - 1.3299890189751412) * (x*x - 1.4364028541716351*x + 0.7139816917074209),
			0.1017 * x * x * (x*x - 2.1966568338249754*x + 1.2949852507374631),
			2.490627285651252793 * x * x * (x*x - 2.38535645472061657*x + 1.57803468208092486),
			-16.54810288924490272 * (x - 1.21712927295533244) * (x - 0.61620406037800089) * x * x,
			47.37952196281928122 * (x - 1.203071208372362603) * (x - 0.658047292653547382) * x * x,
			-34.87065786149660974 * (x - 1.2) * (x - 0.666666666666666667) * x * x,
			2.5 * (x - 1) * (x - 0.6) * x * x,
		})
	}
}

func TestWeights_PanicsOnWrongLength(t *testing.T) {
	defer func() {
		if r := recover(); r != "tableau: Weights needs as many entries as Dense.P has rows" {
			t.Errorf("recovered %v", r)
		}
	}()
	RK4().Weights(make([]float64, 4), 0.5)
}

func TestWeights_DoesNotAllocate(t *testing.T) {
	m := Dopri8()
	w := make([]float64, len(m.Dense.P))
	if n := testing.AllocsPerRun(10, func() { m.Weights(w, 0.3) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func TestMethodsAreBuiltOnce(t *testing.T) {
	if a, b := Tsit5(), Tsit5(); a != b {
		t.Error("Tsit5 was built twice")
	}
	a, b := All(), All()
	for i := range a {
		if a[i] != b[i] {
			t.Errorf("%s was built twice", a[i].Name)
		}
	}
}
