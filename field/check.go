package field

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// CheckSettings says where [Check] looks and how much it lets pass. Its zero
// value takes five random points.
type CheckSettings[T backend.Float] struct {
	// Points are where f is looked at. If there are none, Random points are
	// drawn from Seed.
	Points []Point[T]
	Random int // 0 is 5
	Seed   uint64
	// Low and High bound every component of a random z; nil is -2 and 2.
	Low, High []T
	// T0 and T1 bound the random times; if both are 0, they are 0 and 1.
	T0, T1 float64
	// Tol is the relative error that passes: 0 is 1e-6 for float64 and 1e-3 for
	// float32, whose differences are that coarse.
	Tol float64
}

// Point is an argument of f. A nil Theta is the right-hand side's own.
type Point[T backend.Float] struct {
	T        float64
	Z, Theta []T
}

// Check compares the VJP and the JVP of f, those it has, with finite differences
// of its Eval, entry by entry of ∂f/∂z, ∂f/∂θ and ∂f/∂t, and its VJPTangent, if it has
// one, with finite differences of its VJP, for a random cotangent at each point. The
// error is nil only if everything agrees; otherwise it says what does not, and the report, which is
// never nil, has the worst entry of each product.
//
// It finds as well what breaks the contract of [Func], [VJPer], [JVPer] and
// [SecondOrderer]: an atheta or a btheta that is overwritten or not allowed to be nil, a
// product that is not linear, inputs that are changed, results that depend on what the
// outputs held before or differ from call to call, and values that are not finite.
//
// A random point has z between Low and High, t between T0 and T1, and each
// parameter within 10% of its value (a parameter 0 between 0 and 0.1, since
// products look right at 0 that are wrong elsewhere). Keep points away from
// kinks of f, where no derivative exists.
//
// An entry ∂f_i/∂x_j agrees if it is as close to the difference d as
//
//	Tol·|d| + 10³·ε·F/max(1, |x_j|)
//
// with ε the machine precision of T and F the size of f_i and its terms: the
// second part is the accuracy to which rounding lets a smooth f_i be differenced.
// Differences are central ones of falling steps, extrapolated (Ridders 1982,
// Advances in Engineering Software 4, 75); steps that leave the domain of f, so
// that it is not finite, are left out. If even the best extrapolation is less
// certain than that, the check fails too. It costs some 10 to 60 evaluations for
// each variable and point; where that is much, check a smaller model of the same
// kind. A check at float64 sees errors a thousand times smaller than at float32.
func Check[T backend.Float](f Func[T], set CheckSettings[T]) (*Report, error) {
	c := &checker[T]{f: f, report: &Report{}, tol: set.Tol, faulty: make(map[string]bool)}
	points, err := c.prepare(&set)
	if err != nil {
		return c.report, fmt.Errorf("field: Check: %w", err)
	}
	for _, p := range points {
		if err := c.point(p); err != nil {
			c.report.Faults = append(c.report.Faults, err)
			break
		}
	}
	if err := c.report.verdict(); err != nil {
		return c.report, fmt.Errorf("field: Check: %w", err)
	}
	return c.report, nil
}

// checker is one run of Check.
type checker[T backend.Float] struct {
	f      Func[T]
	back   VJPer[T]         // nil if there is no VJP
	fwd    JVPer[T]         // nil if there is no JVP
	second SecondOrderer[T] // nil if there is no VJPTangent
	tol    float64
	rng    *rand.Rand
	report *Report
	faulty map[string]bool // faults that were noted
}

// prepare finds the products and the points.
func (c *checker[T]) prepare(set *CheckSettings[T]) ([]Point[T], error) {
	f := c.f
	if v, ok := f.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return nil, err
		}
	}
	if d, p := f.Dim(), len(f.Params()); d < 1 || p != f.NumParams() {
		return nil, fmt.Errorf("%T has dimension %d, NumParams %d and Params of length %d; the first must be positive and the others equal", f, d, f.NumParams(), p)
	}
	c.back, _ = f.(VJPer[T])
	c.fwd, _ = f.(JVPer[T])
	if h, ok := f.(interface{ HasVJP() bool }); ok && !h.HasVJP() {
		c.back = nil
	}
	if h, ok := f.(interface{ HasJVP() bool }); ok && !h.HasJVP() {
		c.fwd = nil
	}
	if c.second, _ = f.(SecondOrderer[T]); c.back == nil {
		c.second = nil // its differences are those of VJP
	}
	if h, ok := f.(interface{ HasVJPTangent() bool }); ok && !h.HasVJPTangent() {
		c.second = nil
	}
	if c.back == nil && c.fwd == nil {
		return nil, fmt.Errorf("%T has neither VJP nor JVP; there is nothing to check", f)
	}
	if c.back != nil {
		c.report.VJP = &Comparison{}
	}
	if c.fwd != nil {
		c.report.JVP = &Comparison{}
	}
	if c.second != nil {
		c.report.VJPTangent = &Comparison{}
	}
	switch {
	case !(c.tol >= 0 && c.tol < 1):
		return nil, fmt.Errorf("the setting Tol is %v; give a number from 0, the default, to 1", c.tol)
	case c.tol == 0:
		c.tol = 1e-6
		if single[T]() {
			c.tol = 1e-3
		}
	}
	c.rng = rand.New(rand.NewPCG(set.Seed, 0))
	points := slices.Clone(set.Points)
	if len(points) == 0 {
		var err error
		if points, err = c.draw(set); err != nil {
			return nil, err
		}
	}
	for n := range points {
		p := &points[n]
		if p.Theta == nil {
			p.Theta = f.Params()
		}
		if len(p.Z) != f.Dim() || len(p.Theta) != f.NumParams() {
			return nil, fmt.Errorf("point %d has %d states and %d parameters, f has %d and %d", n, len(p.Z), len(p.Theta), f.Dim(), f.NumParams())
		}
		if !finite(T(p.T)) || !finite(p.Z...) || !finite(p.Theta...) {
			return nil, fmt.Errorf("point %d is not finite: t = %v, z = %v, θ = %v", n, p.T, p.Z, p.Theta)
		}
		// Nothing that f does may reach the caller's slices.
		p.Z, p.Theta = slices.Clone(p.Z), slices.Clone(p.Theta)
	}
	return points, nil
}

// draw makes random points.
func (c *checker[T]) draw(set *CheckSettings[T]) ([]Point[T], error) {
	d, n := c.f.Dim(), set.Random
	if n < 0 {
		return nil, fmt.Errorf("the setting Random is %d; give the number of points, or 0 for 5", n)
	}
	if n == 0 {
		n = 5
	}
	t0, t1 := set.T0, set.T1
	if t0 == 0 && t1 == 0 {
		t1 = 1
	}
	bound := func(name string, b []T, otherwise T) ([]T, error) {
		if b == nil {
			return slices.Repeat([]T{otherwise}, d), nil
		}
		if len(b) != d {
			return nil, fmt.Errorf("the setting %s has length %d; f has %d states", name, len(b), d)
		}
		return b, nil
	}
	low, err := bound("Low", set.Low, -2)
	if err != nil {
		return nil, err
	}
	high, err := bound("High", set.High, 2)
	if err != nil {
		return nil, err
	}
	between := func(a, b float64) T { return T(a + (b-a)*c.rng.Float64()) }
	points := make([]Point[T], n)
	for i := range points {
		p := Point[T]{T: float64(between(t0, t1)), Z: make([]T, d), Theta: slices.Clone(c.f.Params())}
		for j := range p.Z {
			p.Z[j] = between(float64(low[j]), float64(high[j]))
		}
		for j, v := range p.Theta {
			if v == 0 {
				p.Theta[j] = between(0, 0.1)
			} else {
				p.Theta[j] = v * between(0.9, 1.1)
			}
		}
		points[i] = p
	}
	return points, nil
}

// fault notes a broken contract, once for each what.
func (c *checker[T]) fault(what, detail string, args ...any) {
	if !c.faulty[what] {
		c.faulty[what] = true
		c.report.Faults = append(c.report.Faults, fmt.Errorf("%s: %s", what, fmt.Sprintf(detail, args...)))
	}
}

// point looks at f at one point. It returns an error where nothing can be compared.
func (c *checker[T]) point(p Point[T]) error {
	f0, err := c.eval(p)
	if err != nil {
		return err
	}
	J, err := c.differences(p, c.f.Eval, f0, nil)
	if err != nil {
		return err
	}
	c.report.Points++
	if c.back != nil {
		c.vjp(p, J)
	}
	if c.fwd != nil {
		c.jvp(p, J)
	}
	if c.second != nil {
		return c.vjpTangent(p)
	}
	return nil
}

// eval returns f and checks Eval itself.
func (c *checker[T]) eval(p Point[T]) ([]T, error) {
	dz, again := make([]T, len(p.Z)), filled[T](len(p.Z), math.NaN())
	for _, out := range [][]T{dz, again} {
		c.pure("Eval", func() { c.f.Eval(p.T, p.Z, p.Theta, out) }, input[T]{"z", p.Z}, input[T]{"θ", p.Theta})
	}
	for i, v := range dz {
		if !finite(v) {
			return nil, fmt.Errorf("f[%d] is %v at %v; give points where f is finite, by Points or by Low and High", i, v, wide(p))
		}
		if again[i] != v {
			c.fault("Eval gives two results for the same arguments", "dz[%d] = %v and then %v; set every component whatever dz held, and use nothing that changes from call to call", i, v, again[i])
		}
	}
	return dz, nil
}

// input is an argument that a method must not change.
type input[T backend.Float] struct {
	name string
	v    []T
}

// pure calls do, notes the inputs that it changes, and restores them.
func (c *checker[T]) pure(method string, do func(), in ...input[T]) {
	kept := make([][]T, len(in))
	for i := range in {
		kept[i] = slices.Clone(in[i].v)
	}
	do()
	for i, x := range in {
		// NaN counts as a change, for no input holds one.
		if !slices.Equal(x.v, kept[i]) {
			c.fault(method+" changes its input "+x.name, "copy what has to change")
			copy(x.v, kept[i])
		}
	}
}

func finite[T backend.Float](v ...T) bool {
	return !slices.ContainsFunc(v, func(x T) bool { return x-x != 0 })
}

func filled[T backend.Float](n int, v float64) []T { return slices.Repeat([]T{T(v)}, n) }

func single[T backend.Float]() bool { _, ok := any(T(0)).(float32); return ok }

// eps is the distance from 1 to the next T.
func eps[T backend.Float]() float64 {
	if single[T]() {
		return 0x1p-23
	}
	return 0x1p-52
}

// smallest is the smallest T with all its digits; what is lost below does not count.
func smallest[T backend.Float]() float64 {
	if single[T]() {
		return 0x1p-126
	}
	return 0x1p-1022
}
