package tableau

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestRootedTrees(t *testing.T) {
	// HNW Table II.2.2; OEIS A000081.
	want := []int{1, 1, 2, 4, 9, 20, 48, 115, 286, 719}
	got := make([]int, len(want))
	names := map[string]bool{}
	for _, tr := range rootedTrees(len(want)) {
		got[tr.order-1]++
		if names[tr.name] {
			t.Errorf("tree %s comes twice", tr.name)
		}
		names[tr.name] = true
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d trees of order %d, want %d", got[i], i+1, want[i])
		}
	}
	// HNW Table II.2.1: the trees of order 4 and their densities.
	gamma := map[string]float64{"[τ,τ,τ]": 4, "[[τ],τ]": 8, "[[τ,τ]]": 12, "[[[τ]]]": 24}
	for _, tr := range rootedTrees(4) {
		if tr.order == 4 && tr.gamma != gamma[tr.name] {
			t.Errorf("γ(%s) = %g, want %g", tr.name, tr.gamma, gamma[tr.name])
		}
	}
}

func TestCheck_All(t *testing.T) {
	for _, m := range All() {
		if err := m.Check(); err != nil {
			t.Error(err)
		}
	}
}

// A coefficient of a tableau, under a name.
type coefficient struct {
	name string
	at   *float64
}

// coefficients lists pointers to all entries, by rows.
func coefficients(m *Tableau) (rows [][]coefficient) {
	add := func(name string, v []float64) {
		row := make([]coefficient, len(v))
		for i := range v {
			row[i] = coefficient{fmt.Sprintf("%s[%d]", name, i), &v[i]}
		}
		rows = append(rows, row)
	}
	matrix := func(name string, m [][]float64) {
		for i, v := range m {
			add(fmt.Sprintf("%s[%d]", name, i), v)
		}
	}
	add("C", m.C)
	add("B", m.B)
	add("E", m.E)
	add("E2", m.E2)
	add("Dense.ExtraC", m.Dense.ExtraC)
	matrix("A", m.A)
	matrix("Dense.ExtraA", m.Dense.ExtraA)
	matrix("Dense.P", m.Dense.P)
	return rows
}

func TestCheck_FindsEveryPerturbedCoefficient(t *testing.T) {
	total := 0
	for _, m := range All() {
		c := m.Clone()
		for _, row := range coefficients(c) {
			for _, co := range row {
				was := *co.at
				*co.at += 1e-6
				if c.Check() == nil {
					t.Errorf("%s: %s off by 1e-6 passes", m.Name, co.name)
				}
				*co.at = was
				total++
			}
		}
		if err := c.Check(); err != nil {
			t.Errorf("after all was put back: %v", err)
		}
	}
	t.Logf("%d coefficients", total)
}

// An error of opposite signs in two entries of a row of A leaves the row's sum:
// only order conditions for larger trees see it.
func TestCheck_FindsBalancedPerturbations(t *testing.T) {
	total := 0
	for _, m := range All() {
		if m.Order < 3 {
			continue // any row with the right sum will do
		}
		c := m.Clone()
		for i, row := range c.A {
			for j := range row {
				for k := range j {
					a, b := row[j], row[k]
					row[j], row[k] = a+1e-6, b-1e-6
					if c.Check() == nil {
						t.Errorf("%s: A[%d][%d] and A[%d][%d] off by ±1e-6 pass", m.Name, i, j, i, k)
					}
					row[j], row[k] = a, b
					total++
				}
			}
		}
	}
	t.Logf("%d pairs", total)
}

// No method is of a higher order than it says: each claim is sharp.
func TestOrdersAreSharp(t *testing.T) {
	for _, m := range All() {
		for _, change := range []struct {
			want string
			do   func(c *Tableau)
		}{
			{"Order is ", func(c *Tableau) { c.Order++ }},
			{"ErrorOrder is ", func(c *Tableau) {
				c.ErrorOrder++
				if c.E2 != nil {
					c.ErrorOrder++ // 2p - E2Order with p one more
				}
			}},
			{"E2Order is ", func(c *Tableau) { c.E2Order++; c.ErrorOrder-- }},
			{"Dense.Order is ", func(c *Tableau) { c.Dense.Order++ }},
		} {
			if !m.Adaptive() && change.want == "ErrorOrder is " || m.E2 == nil && change.want == "E2Order is " {
				continue
			}
			c := m.Clone()
			change.do(c)
			if err := c.Check(); err == nil || !strings.Contains(err.Error(), "tableau: "+m.Name+": "+change.want) {
				t.Errorf("%s with one order more: %v; want an error with %q", m.Name, err, change.want)
			}
		}
	}
}

func TestCheck_Messages(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		of     func() *Tableau
		change func(t *Tableau)
		want   string
	}{
		{RK4, func(t *Tableau) { t.Name = "" }, "Name is empty"},
		{RK4, func(t *Tableau) { *t = Tableau{Name: "x"} }, "B is empty"},
		{RK4, func(t *Tableau) { t.C = t.C[:3] }, "C has 3 entries and A 4 rows for 4 weights"},
		{RK4, func(t *Tableau) { t.A[2] = []float64{0, 0.5, 0} }, "A[2] has 3 entries, want 2: the method is explicit"},
		{RK4, func(t *Tableau) { t.Order = 0 }, "Order is 0, want 1 to 10"},
		{RK4, func(t *Tableau) { t.Order = 11 }, "Order is 11, want 1 to 10"},
		{RK4, func(t *Tableau) { t.ErrorOrder = 3 }, "E is nil, but ErrorOrder is 3"},
		{RK4, func(t *Tableau) { t.B[1], t.B[2] = 0.4, 1.0/3-0.4+1.0/3 },
			"tableau: rk4: Order is 4, but the condition of order 3 for tree [[τ]] fails: Σ B_j·Φ_j = 0.15, want 1/6"},
		{RK4, func(t *Tableau) { t.A[2][1] += 1e-6 }, "A[2] sums to 0.500001"},
		{RK4, func(t *Tableau) { t.Dense.ExtraA[0][3] += 1e-6 }, "Dense.ExtraA[0] sums to 1.00000"},
		{RK4, func(t *Tableau) { t.Dense = Dense{} }, "Dense.P is empty; set Dense = t.Hermite()"},
		{RK4, func(t *Tableau) { t.Dense.P = t.Dense.P[:4] }, "Dense.P has 4 rows, want 5"},
		{RK4, func(t *Tableau) { t.Dense.P[2] = []float64{1} }, "Dense.P[2] has 1 entries and P[0] 3"},
		{RK4, func(t *Tableau) { t.Dense.ExtraA[0] = t.Dense.ExtraA[0][:2] }, "Dense.ExtraA[0] has 2 entries, want 4"},
		{RK4, func(t *Tableau) { t.Dense.ExtraC = nil }, "Dense.ExtraC has 0 entries for 1 rows"},
		{RK4, func(t *Tableau) { t.Dense.Order = 0 }, "Dense.Order is 0"},
		{RK4, func(t *Tableau) { t.B[2] = nan }, "B[2] is NaN"},
		{RK4, func(t *Tableau) { t.A[3][1] = math.Inf(1) }, "A[3][1] is +Inf"},
		{RK4, func(t *Tableau) { t.Dense.P[3][1] = nan }, "Dense.P[3][1] is NaN"},
		{RK4, func(t *Tableau) { t.FSAL = true }, "FSAL is set, but the last stage is not f(t1, y1)"},
		{RK4, func(t *Tableau) { t.Dense.P[4][0] = 1e-6; t.Dense.P[4][1] -= 1e-6 }, "at x = 0 the interpolant's derivative is not f(t0, y0): stage 4"},
		{RK4, func(t *Tableau) { t.Dense.P[4][1] += 1e-6; t.Dense.P[4][2] -= 1e-6 }, "at x = 1 the interpolant's derivative is not f(t1, y1): stage 4"},
		{RK4, func(t *Tableau) { t.Dense.P[4][2] += 1e-6 }, "the interpolant is not y1 at x = 1: Dense.P[4] sums to"},
		{RK4, func(t *Tableau) { t.Dense.P[2][1] += 1e-6; t.Dense.P[1][1] -= 1e-6 }, "the interpolant is not y1"},
		{RK4, func(t *Tableau) { t.Dense.P[1][1] += 1e-6; t.Dense.P[1][2] -= 1e-6 }, "Dense.Order is 3, but the condition of order 1 for tree τ fails"},
		// Another way from f(t0, y0) to y1: order 1, and not differentiable where steps meet.
		{Euler, func(t *Tableau) { t.Dense = Dense{Order: 1, C1: true, P: [][]float64{{1}}} }, "Dense.C1 is set, but no stage is f(t1, y1)"},
		{Dopri5, func(t *Tableau) { t.FSAL = false }, "the last stage is f(t1, y1); set FSAL"},
		{Dopri5, func(t *Tableau) { t.E = t.E[:6] }, "E has 6 and E2 0 entries, want 7"},
		{Dopri5, func(t *Tableau) { t.E = make([]float64, 7) }, "E is zero and estimates no error"},
		{Dopri5, func(t *Tableau) { t.ErrorOrder = 0 }, "ErrorOrder is 0, want 1 to 10 as E is set"},
		{Dopri5, func(t *Tableau) { t.E[3] += 1e-6 }, "ErrorOrder is 4, but y1 - h·Σ E_j·k_j is not of order 4: for tree τ, Σ E_j·Φ_j is off by 1e-06"},
		{Dopri5, func(t *Tableau) { t.E2Order = 3 }, "E2Order is 3 and E2 has 0 entries"},
		{Dopri8, func(t *Tableau) { t.E2[0] += 1e-6 }, "E2Order is 3, but y1 - h·Σ E2_j·k_j is not of order 3"},
		{Dopri8, func(t *Tableau) { t.ErrorOrder = 9 }, "ErrorOrder is 9, but y1 - h·Σ E_j·k_j"},
		{Dopri8, func(t *Tableau) { t.ErrorOrder = 6 }, "ErrorOrder 6 and E2Order 3 do not belong together"},
		{Dopri8, func(t *Tableau) { t.E2 = nil }, "E2Order is 3 and E2 has 0 entries"},
	} {
		m := c.of().Clone()
		c.change(m)
		if err := m.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got  %v\nwant … %s …", err, c.want)
		}
	}
}

// A tableau of Merson's 4(3), whose authors give no interpolant, as a user would
// write it (HNW Table II.4.1).
func TestCheck_UserTableau(t *testing.T) {
	m := &Tableau{
		Name: "merson4", Order: 4, ErrorOrder: 3,
		C: []float64{0, 1.0 / 3, 1.0 / 3, 1.0 / 2, 1},
		A: [][]float64{{}, {1.0 / 3}, {1.0 / 6, 1.0 / 6}, {1.0 / 8, 0, 3.0 / 8}, {1.0 / 2, 0, -3.0 / 2, 2}},
		B: []float64{1.0 / 6, 0, 0, 2.0 / 3, 1.0 / 6},
		E: []float64{1.0/6 - 1.0/10, 0, -3.0 / 10, 2.0/3 - 2.0/5, 1.0/6 - 1.0/5},
	}
	m.Dense = m.Hermite()
	if err := m.Check(); err != nil {
		t.Error(err)
	}
}
