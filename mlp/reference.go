package mlp

// The arithmetic in this file is the reference that backends are tested against:
// one sample at a time, in float64 whatever T is, rounded to T once at the end.
// It allocates and is not meant to be fast.

// trace is what a forward pass leaves for its derivatives.
type trace struct {
	x [][]float64 // x[l]: input of layer l, with the time column if it has one; x[L] = f
	d [][]float64 // d[l]: σ'_l at the pre-activations of layer l
}

// forward computes f(t, z; θ).
func (m *Model[T]) forward(t float64, z []T) trace {
	layers := m.Spec.Layers()
	tr := trace{x: make([][]float64, len(layers)+1), d: make([][]float64, len(layers))}
	x := make([]float64, len(z))
	for i := range z {
		x[i], _ = m.Spec.Input.both(float64(z[i]))
	}
	for l, y := range layers {
		if y.HasTime {
			x = append(x, t)
		}
		tr.x[l] = x
		out, d := make([]float64, y.Out), make([]float64, y.Out)
		for i := range out {
			s := float64(m.Theta[y.B+i])
			for j := range x {
				s += float64(m.Theta[y.W+i*y.In+j]) * x[j]
			}
			out[i], d[i] = y.Act.Both(s)
		}
		tr.d[l] = d
		x = out
	}
	tr.x[len(layers)] = x
	return tr
}

// both is g(z) and g'(z) of one component.
func (i Input) both(z float64) (g, dg float64) {
	if i == InputCube {
		return z * z * z, 3 * z * z
	}
	return z, 1
}

// Eval computes dz = f(t, z; θ), z of length Dim and dz of length OutDim.
func (m *Model[T]) Eval(t float64, z, dz []T) {
	if len(z) != m.Dim() || len(dz) != m.OutDim() {
		panic("mlp: Eval with slices of the wrong length")
	}
	x := m.forward(t, z).x
	for i, v := range x[len(x)-1] {
		dz[i] = T(v)
	}
}

// VJP computes, for a cotangent a of length OutDim,
//
//	az      = aᵀ∂f/∂z    length Dim, overwritten
//	atheta += aᵀ∂f/∂θ    length NumParams, accumulated
//	at      = aᵀ∂f/∂t
//
// A nil az or atheta is not computed. az may be z or a.
func (m *Model[T]) VJP(t float64, z, a, az, atheta []T) (at float64) {
	if len(z) != m.Dim() || len(a) != m.OutDim() ||
		az != nil && len(az) != m.Dim() || atheta != nil && len(atheta) != len(m.Theta) {
		panic("mlp: VJP with slices of the wrong length")
	}
	tr := m.forward(t, z)
	layers := m.Spec.Layers()
	// g is the cotangent of a layer's output, gx that of its input.
	g := make([]float64, len(a))
	for i := range a {
		g[i] = float64(a[i])
	}
	for l := len(layers) - 1; l >= 0; l-- {
		y, x := layers[l], tr.x[l]
		gx := make([]float64, y.In)
		for i := range y.Out {
			delta := g[i] * tr.d[l][i] // cotangent of s_i
			for j := range y.In {
				w := y.W + i*y.In + j
				gx[j] += float64(m.Theta[w]) * delta
				if atheta != nil {
					atheta[w] = T(float64(atheta[w]) + delta*x[j])
				}
			}
			if atheta != nil {
				atheta[y.B+i] = T(float64(atheta[y.B+i]) + delta)
			}
		}
		if y.HasTime {
			at += gx[y.In-1]
			gx = gx[:y.In-1]
		}
		g = gx
	}
	for i := range az {
		_, dg := m.Spec.Input.both(float64(z[i]))
		az[i] = T(g[i] * dg)
	}
	return at
}

// JVP computes jv = (∂f/∂z)v + (∂f/∂θ)w, of length OutDim, for tangents v of z,
// length Dim, and w of θ, length NumParams. A nil v or w is zero. jv may be z or v.
func (m *Model[T]) JVP(t float64, z, v, w []T, jv []T) {
	if len(z) != m.Dim() || v != nil && len(v) != m.Dim() ||
		w != nil && len(w) != len(m.Theta) || len(jv) != m.OutDim() {
		panic("mlp: JVP with slices of the wrong length")
	}
	tr := m.forward(t, z)
	// dx is the tangent of a layer's input.
	dx := make([]float64, len(z))
	for i := range v {
		_, dg := m.Spec.Input.both(float64(z[i]))
		dx[i] = dg * float64(v[i])
	}
	for l, y := range m.Spec.Layers() {
		if y.HasTime {
			dx = append(dx, 0) // t is held fixed
		}
		x, out := tr.x[l], make([]float64, y.Out)
		for i := range out {
			ds := 0.0
			if w != nil {
				ds = float64(w[y.B+i])
			}
			for j := range x {
				p := y.W + i*y.In + j
				ds += float64(m.Theta[p]) * dx[j]
				if w != nil {
					ds += float64(w[p]) * x[j]
				}
			}
			out[i] = ds * tr.d[l][i]
		}
		dx = out
	}
	for i := range jv {
		jv[i] = T(dx[i])
	}
}
