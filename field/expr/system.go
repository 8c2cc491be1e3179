package expr

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/field"
)

// Settings names what equations speak of.
type Settings[T backend.Float] struct {
	// State are the names of the components of z, one an equation; nil is z0, z1, ….
	State []string
	// Params are the names of θ, Theta its values; nil Theta is zeros.
	Params []string
	Theta  []T
}

// System is a right-hand side made of equations. Its methods may be called from several
// goroutines at once.
type System[T backend.Float] struct {
	dim    int
	theta  []T
	source field.Source
	// The derivative of z, and [aᵀ∂f/∂z, aᵀ∂f/∂t], the same and aᵀ∂f/∂θ, (∂f/∂z)v + (∂f/∂θ)w, and
	// the derivative of [aᵀ∂f/∂z, aᵀ∂f/∂θ].
	eval, vjp, vjpTheta, jvp, tangent *program[T]
}

var (
	_ field.SecondOrderer[float32] = (*System[float32])(nil)
	_ field.JVPer[float64]         = (*System[float64])(nil)
	_ field.Sourcer[float64]       = (*System[float64])(nil)
)

// inputs are the numbers of what programs read: t, z, θ, and the vectors a, v, b, w of
// products.
type inputs struct{ d, p int }

func (n inputs) t() int     { return 0 }
func (n inputs) z() int     { return 1 }
func (n inputs) theta() int { return 1 + n.d }
func (n inputs) a() int     { return 1 + n.d + n.p }
func (n inputs) v() int     { return n.a() + n.d }
func (n inputs) b() int     { return n.v() + n.d }
func (n inputs) w() int     { return n.b() + n.d }
func (n inputs) count() int { return n.w() + n.p }

// Parse makes a right-hand side of one equation for each component of the state; see the
// package comment. The error says what is wrong in which equation, and where. Theta is
// copied.
func Parse[T backend.Float](equations []string, set Settings[T]) (*System[T], error) {
	if len(equations) == 0 {
		return nil, errors.New("expr: Parse: there is no equation; give one for each component of the state")
	}
	n := inputs{d: len(equations), p: len(set.Params)}
	state := set.State
	if state == nil {
		for i := range n.d {
			state = append(state, fmt.Sprintf("z%d", i))
		}
	}
	switch {
	case len(state) != n.d:
		return nil, fmt.Errorf("expr: Parse: %d equations and %d names of components; give as many", n.d, len(state))
	case set.Theta != nil && len(set.Theta) != n.p:
		return nil, fmt.Errorf("expr: Parse: %d parameters and a Theta of length %d; give as many values as names, or none", n.p, len(set.Theta))
	}
	g := &graph{known: map[node]id{}}
	names := map[string]id{"t": g.input(n.t()), "pi": g.number(math.Pi)}
	for i, name := range slices.Concat(state, set.Params) {
		if err := checkName(name, names); err != nil {
			return nil, fmt.Errorf("expr: Parse: %w", err)
		}
		names[name] = g.input(n.z() + i)
	}
	f := make([]id, n.d)
	for i, text := range equations {
		p := parser{g: g, names: names, text: text}
		var err error
		if f[i], err = p.equation(); err != nil {
			return nil, fmt.Errorf("expr: Parse: equation %d, %w", i, err)
		}
	}
	return build(g, n, f, set.Theta), nil
}

func checkName(name string, known map[string]id) error {
	valid := name != ""
	for i, c := range name {
		valid = valid && (isLetter(c) || i > 0 && unicode.IsDigit(c))
	}
	if !valid {
		return fmt.Errorf("%q is no name; use letters, digits and _, a letter first", name)
	}
	_, taken := known[name]
	if _, function := functions[name]; taken || function || name == "if" {
		return fmt.Errorf("the name %q is taken; choose another", name)
	}
	return nil
}

// build derives f and compiles all of it.
func build[T backend.Float](g *graph, n inputs, f []id, theta []T) *System[T] {
	group := func(first, count int) []id {
		x := make([]id, count)
		for i := range x {
			x[i] = g.input(first + i)
		}
		return x
	}
	z, th, t := group(n.z(), n.d), group(n.theta(), n.p), group(n.t(), 1)
	a, v, b, w := group(n.a(), n.d), group(n.v(), n.d), group(n.b(), n.d), group(n.w(), n.p)

	back := g.reverse(f, a, slices.Concat(z, t, th))
	direction := map[id]id{}
	along := func(x, dx []id) {
		for i := range x {
			direction[x[i]] = dx[i]
		}
	}
	along(z, v)
	along(th, w)
	forward := g.forward(f, direction)
	along(a, b)
	second := g.forward(slices.Concat(back[:n.d], back[n.d+1:]), direction)

	s := &System[T]{dim: n.d, theta: make([]T, n.p)}
	copy(s.theta, theta)
	in := n.count()
	s.eval, s.jvp = compile[T](g, in, f), compile[T](g, in, forward)
	s.vjp, s.vjpTheta = compile[T](g, in, back[:n.d+1]), compile[T](g, in, back)
	s.tangent = compile[T](g, in, second)
	s.source = source(g, n, f, back, forward)
	return s
}

// Dim is the number of equations, D.
func (s *System[T]) Dim() int { return s.dim }

// NumParams is the length of θ, P.
func (s *System[T]) NumParams() int { return len(s.theta) }

// Params returns θ itself, not a copy.
func (s *System[T]) Params() []T { return s.theta }

// Source is the right-hand side and its products as CUDA C++.
func (s *System[T]) Source() field.Source { return s.source }

func (s *System[T]) inputs() inputs { return inputs{d: s.dim, p: len(s.theta)} }

// begin returns memory of a program with its first inputs set.
func (s *System[T]) begin(p *program[T], t float64, z, theta []T) (*[]T, []T, inputs) {
	n := s.inputs()
	if len(z) != n.d || len(theta) != n.p {
		panic("expr: state or parameters of the wrong length")
	}
	mem := p.pool.Get().(*[]T)
	m := *mem
	m[0] = T(t)
	copy(m[n.z():], z)
	copy(m[n.theta():], theta)
	return mem, m, n
}

// Eval sets dz = f(t, z; θ).
func (s *System[T]) Eval(t float64, z, theta, dz []T) {
	mem, m, _ := s.begin(s.eval, t, z, theta)
	s.eval.run(m)
	for i, at := range s.eval.outs {
		dz[i] = m[at]
	}
	s.eval.pool.Put(mem)
}

// VJP computes vector-Jacobian products, as [field.VJPer] says.
func (s *System[T]) VJP(t float64, z, theta, a, az, atheta []T) (at float64) {
	p := s.vjp
	if atheta != nil {
		p = s.vjpTheta
	}
	mem, m, n := s.begin(p, t, z, theta)
	copy(m[n.a():n.v()], a)
	p.run(m)
	for i := range az {
		az[i] = m[p.outs[i]]
	}
	for i := range atheta {
		atheta[i] += m[p.outs[n.d+1+i]]
	}
	at = float64(m[p.outs[n.d]])
	p.pool.Put(mem)
	return at
}

// JVP computes Jacobian-vector products, as [field.JVPer] says.
func (s *System[T]) JVP(t float64, z, theta, v, w, jv []T) {
	p := s.jvp
	mem, m, n := s.begin(p, t, z, theta)
	copy(m[n.v():n.b()], v)
	copy(m[n.w():], w[:n.p])
	p.run(m)
	for i, at := range p.outs {
		jv[i] = m[at]
	}
	p.pool.Put(mem)
}

// VJPTangent computes derivatives of vector-Jacobian products, as [field.SecondOrderer]
// says.
func (s *System[T]) VJPTangent(t float64, z, theta, a, v, b, w, bz, btheta []T) {
	p := s.tangent
	mem, m, n := s.begin(p, t, z, theta)
	copy(m[n.a():n.v()], a)
	copy(m[n.v():n.b()], v)
	copy(m[n.b():n.w()], b)
	copy(m[n.w():], w[:n.p])
	p.run(m)
	for i := range bz {
		bz[i] = m[p.outs[i]]
	}
	for i := range btheta {
		btheta[i] += m[p.outs[n.d+i]]
	}
	p.pool.Put(mem)
}
