package field

import (
	"sync"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// Generic is a right-hand side written over [Number], with its products derived.
type Generic[T backend.Float] struct {
	dim   int
	theta []T
	f     func(t T, z, theta, dz []T)
	dual  func(t Dual, z, theta, dz []Dual)
	pool  sync.Pool // of *duals
}

// duals is the scratch of one product.
type duals struct{ z, theta, dz []Dual }

var (
	_ VJPer[float32] = (*Generic[float32])(nil)
	_ JVPer[float64] = (*Generic[float64])(nil)
)

// New makes a right-hand side of dim components from one generic function, given
// at the element type and at [Dual]; see the package comment. It must set every
// component of dz. theta is kept, not copied: it is what Params returns.
func New[T backend.Float](dim int, theta []T, f func(t T, z, theta, dz []T), dual func(t Dual, z, theta, dz []Dual)) *Generic[T] {
	if dim < 1 {
		panic("field: New needs a dimension of at least 1")
	}
	if f == nil || dual == nil {
		panic("field: New needs the function at both types")
	}
	g := &Generic[T]{dim: dim, theta: theta, f: f, dual: dual}
	g.pool.New = func() any {
		return &duals{z: make([]Dual, dim), theta: make([]Dual, len(theta)), dz: make([]Dual, dim)}
	}
	return g
}

// Dim is the number of components of the state, D.
func (g *Generic[T]) Dim() int { return g.dim }

// NumParams is the length of θ, P.
func (g *Generic[T]) NumParams() int { return len(g.theta) }

// Params returns the θ that New was given, not a copy.
func (g *Generic[T]) Params() []T { return g.theta }

// Eval sets dz = f(t, z; θ), computed in T.
func (g *Generic[T]) Eval(t float64, z, theta, dz []T) {
	if len(z) != g.dim || len(theta) != len(g.theta) || len(dz) != g.dim {
		panic("field: Eval with slices of the wrong length")
	}
	g.f(T(t), z, theta, dz)
}

// VJP computes vector-Jacobian products as [VJPer] says, in float64 whatever T
// is, one direction at a time.
func (g *Generic[T]) VJP(t float64, z, theta, a, az, atheta []T) (at float64) {
	if len(z) != g.dim || len(theta) != len(g.theta) || len(a) != g.dim ||
		len(az) != g.dim || atheta != nil && len(atheta) != len(g.theta) {
		panic("field: VJP with slices of the wrong length")
	}
	s := g.pool.Get().(*duals)
	defer g.pool.Put(s)
	fill(s.z, z)
	fill(s.theta, theta)
	for j, v := range z {
		s.z[j] = MakeDual(float64(v), 1)
		az[j] = T(g.along(s, complex(t, 0), a))
		s.z[j] = complex(float64(v), 0)
	}
	if atheta != nil {
		for j, v := range theta {
			s.theta[j] = MakeDual(float64(v), 1)
			atheta[j] += T(g.along(s, complex(t, 0), a))
			s.theta[j] = complex(float64(v), 0)
		}
	}
	return g.along(s, MakeDual(t, 1), a)
}

// along is aᵀ∂f in the direction of the tangents in t and s.
func (g *Generic[T]) along(s *duals, t Dual, a []T) (sum float64) {
	g.dual(t, s.z, s.theta, s.dz)
	for i, d := range s.dz {
		sum += float64(a[i]) * Tangent(d)
	}
	return sum
}

// JVP computes a Jacobian-vector product as [JVPer] says, in float64 whatever T is.
func (g *Generic[T]) JVP(t float64, z, theta, v, w, jv []T) {
	if len(z) != g.dim || len(theta) != len(g.theta) || len(v) != g.dim ||
		len(w) != len(g.theta) || len(jv) != g.dim {
		panic("field: JVP with slices of the wrong length")
	}
	s := g.pool.Get().(*duals)
	defer g.pool.Put(s)
	for i := range z {
		s.z[i] = MakeDual(float64(z[i]), float64(v[i]))
	}
	for i := range theta {
		s.theta[i] = MakeDual(float64(theta[i]), float64(w[i]))
	}
	g.dual(complex(t, 0), s.z, s.theta, s.dz)
	for i, d := range s.dz {
		jv[i] = T(Tangent(d))
	}
}

// fill sets dst to src without tangents.
func fill[T backend.Float](dst []Dual, src []T) {
	for i, v := range src {
		dst[i] = complex(float64(v), 0)
	}
}
