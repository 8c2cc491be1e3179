package docs_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/backend/backendtest"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/solver"
	"github.com/seed-5f5774c8/neuralode/tableau"
)

// reactor is a substance that is fed, washed out and eaten by an enzyme: θ is the rate of
// dilution, the largest rate of the reaction and the concentration of half that rate.
func reactor[T field.Number](feed float64) func(t T, z, theta, dz []T) {
	in := field.Const[T](feed)
	return func(_ T, z, theta, dz []T) {
		eaten := theta[1] * z[0] / (theta[2] + z[0])
		dz[0] = theta[0]*(in-z[0]) - eaten
		dz[1] = eaten - theta[0]*z[1]
	}
}

func Example_generic() {
	f := field.New(2, []float64{0.1, 0.5, 2}, reactor[float64](10), reactor[field.Dual](10))
	_, err := field.Check(f, field.CheckSettings[float64]{Low: []float64{1, 0}, High: []float64{10, 5}})
	fmt.Println(err)
	// Output: <nil>
}

// ring is diffusion on a ring of N cells, each border with a conductivity of its own:
//
//	dz_i/dt = q_i - q_{i-1},   q_i = θ_i·(z_{i+1} - z_i)
type ring struct{ theta []float64 }

func (r *ring) Dim() int          { return len(r.theta) }
func (r *ring) NumParams() int    { return len(r.theta) }
func (r *ring) Params() []float64 { return r.theta }

func (r *ring) Eval(_ float64, z, theta, dz []float64) {
	clear(dz)
	for i, c := range theta {
		j := (i + 1) % len(z)
		q := c * (z[j] - z[i])
		dz[i] += q
		dz[j] -= q
	}
}

// VJP: border i carries the cotangent a_i - a_j of its flow.
func (r *ring) VJP(_ float64, z, theta, a, az, atheta []float64) (at float64) {
	clear(az)
	for i, c := range theta {
		j := (i + 1) % len(z)
		b := a[i] - a[j]
		az[j] += c * b
		az[i] -= c * b
		if atheta != nil {
			atheta[i] += b * (z[j] - z[i]) // added, not set
		}
	}
	return 0
}

func (r *ring) JVP(_ float64, z, theta, v, w, jv []float64) {
	clear(jv)
	for i, c := range theta {
		j := (i + 1) % len(z)
		dq := c*(v[j]-v[i]) + w[i]*(z[j]-z[i])
		jv[i] += dq
		jv[j] -= dq
	}
}

func Example_ownProducts() {
	r := &ring{theta: make([]float64, 1000)}
	for i := range r.theta {
		r.theta[i] = 1 + 0.5*math.Sin(float64(i))
	}
	report, err := field.Check(&ring{r.theta[:8]}, field.CheckSettings[float64]{})
	check(err)
	fmt.Println(report.VJP.Wrong, "of", report.VJP.Entries, "and", report.JVP.Wrong, "of", report.JVP.Entries, "derivatives are wrong")

	ctx, dev := context.Background(), cpu.New[float64]()
	defer dev.Close()
	s, err := solver.New(dev, r, solver.Settings{})
	check(err)
	defer s.Close()
	z0 := make([]float64, 1000)
	z0[0] = 1
	sol, err := s.Solve(ctx, z0, []float64{0, 5})
	check(err)
	dLdz := make([]float64, len(sol.Y))
	dLdz[1000+10] = 1 // how what arrives at cell 10 depends on the conductivities
	g, err := adjoint.Gradients(ctx, s, sol, dLdz)
	check(err)
	fmt.Printf("z(10) = %.5f, by θ(9) %.5f, by θ(500) %.5f\n", sol.Final()[10], g.Theta[9], g.Theta[500])
	// Output:
	// 0 of 680 and 0 of 640 derivatives are wrong
	// z(10) = 0.00111, by θ(9) 0.00035, by θ(500) 0.00000
}

// cashKarp is Cash and Karp's pair of orders 5(4) (1990, A variable order Runge-Kutta
// method for initial value problems with rapidly varying right-hand sides, ACM TOMS 16).
func cashKarp() *tableau.Tableau {
	m := &tableau.Tableau{
		Name:  "cash_karp",
		Order: 5, ErrorOrder: 4,
		C: []float64{0, 1. / 5, 3. / 10, 3. / 5, 1, 7. / 8},
		A: [][]float64{
			{},
			{1. / 5},
			{3. / 40, 9. / 40},
			{3. / 10, -9. / 10, 6. / 5},
			{-11. / 54, 5. / 2, -70. / 27, 35. / 27},
			{1631. / 55296, 175. / 512, 575. / 13824, 44275. / 110592, 253. / 4096},
		},
		B: []float64{37. / 378, 0, 250. / 621, 125. / 594, 0, 512. / 1771},
	}
	embedded := []float64{2825. / 27648, 0, 18575. / 48384, 13525. / 55296, 277. / 14336, 1. / 4}
	for i, b := range m.B {
		m.E = append(m.E, b-embedded[i])
	}
	m.Dense = m.Hermite()
	return m
}

func Example_method() {
	m := cashKarp()
	check(m.Check())
	dev := cpu.New[float64]()
	defer dev.Close()
	f, z0, ts := predators()
	s, err := solver.New(dev, f, solver.Settings{Tableau: m})
	check(err)
	defer s.Close()
	sol, err := s.Solve(context.Background(), z0, ts)
	check(err)
	fmt.Printf("%s: z(20) = %.4f, %d evaluations\n", sol.Method, sol.Final(), sol.Evaluations())
	// Output:
	// cash_karp: z(20) = [1.0577 0.8287], 1041 evaluations
}

// counting counts the steps that it is asked to attempt. Of the backend within it shows
// what Backend has, and none of its further capabilities.
type counting[T backend.Float] struct {
	backend.Backend[T]
	attempts int
}

func (c *counting[T]) Advance(clk backend.Clock, ctl backend.Control) {
	c.attempts++
	c.Backend.Advance(clk, ctl)
}

func Example_backend() {
	dev := &counting[float64]{Backend: cpu.New[float64]()}
	defer dev.Close()
	f, z0, ts := predators()
	s, err := solver.New(dev, f, solver.Settings{})
	check(err)
	defer s.Close()
	sol, err := s.Solve(context.Background(), z0, ts)
	check(err)
	fmt.Println(dev.attempts, sol.Stats[0].Accepted+sol.Stats[0].Rejected)

	adj, err := adjoint.New(s, adjoint.Settings{})
	check(err)
	defer adj.Close()
	fmt.Println(adj.Method()) // Discrete needs a backend.Reverser
	// Output:
	// 206 206
	// continuous
}

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backend.Backend[float64] {
		return &counting[float64]{Backend: cpu.New[float64]()}
	})
}
