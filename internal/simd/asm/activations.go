package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A number whose sum with a small whole number has that in its lowest bits.
func (a arch) magic() Mem {
	if a.f32() {
		return a.c(3 << 22)
	}
	return a.c(3 << 51)
}

// reduced is y = n·ln 2 + r with expm1(r), |r| ≤ ln(2)/2.
type reduced struct{ n, expm1 VecVirtual }

// reduce splits y (Cody and Waite 1980): n is y/ln 2 rounded, ln 2 is in two parts, and
// expm1(r) is its Taylor series, which ends below a quarter of the last place.
func (a arch) reduce(y VecVirtual) reduced {
	terms, hi := 13, 0.693147180369123816490
	if a.f32() {
		terms, hi = 7, 0.693359375
	}
	n := a.vec()
	a.mul(a.c(math.Log2E), y, n)
	a.add(a.magic(), n, n)
	a.sub(a.magic(), n, n)
	r := a.vec()
	a.mov(y, r)
	a.fnma(a.c(hi), n, r)
	lo := math.Ln2 - hi
	if !a.f32() {
		lo = 1.90821492927058770002e-10
	}
	a.fnma(a.c(lo), n, r)
	factorial := 1.0
	for i := 2; i <= terms; i++ {
		factorial *= float64(i)
	}
	p := a.set(a.c(1 / factorial))
	for i := terms; i > 2; i-- {
		factorial /= float64(i)
		a.horner(a.c(1/factorial), r, p)
	}
	// r + r²·p keeps the digits of a small r.
	a.mul(r, p, p)
	a.horner(r, r, p)
	return reduced{n, p}
}

// pow2 sets n, whole, to 2^n, a normal number.
func (a arch) pow2(n VecVirtual) {
	a.add(a.magic(), n, n)
	if a.f32() {
		VPSLLD(Imm(23), n, n)
		VPADDD(a.c(1), n, n)
	} else {
		VPSLLQ(Imm(52), n, n)
		VPADDQ(a.c(1), n, n)
	}
}

// expm1 is e^y - 1, for y from -big to big.
func (a arch) expm1(y VecVirtual) VecVirtual {
	e := a.reduce(y)
	a.pow2(e.n)
	less := a.vec()
	a.sub(a.c(1), e.n, less)
	a.horner(less, e.n, e.expm1)
	return e.expm1
}

// exp is e^y for y ≤ 0 down to -big: to the smallest number, in two factors.
func (a arch) exp(y VecVirtual) VecVirtual {
	e := a.reduce(y)
	half := a.vec()
	a.mul(a.c(0.5), e.n, half)
	a.add(a.magic(), half, half)
	a.sub(a.magic(), half, half)
	a.sub(half, e.n, e.n)
	a.pow2(e.n)
	a.pow2(half)
	a.add(a.c(1), e.expm1, e.expm1)
	a.mul(e.n, e.expm1, e.expm1)
	a.mul(half, e.expm1, e.expm1)
	return e.expm1
}

// big is beyond the logarithm of the smallest number.
func (a arch) big() float64 {
	if a.f32() {
		return 105
	}
	return 750
}

// Of min and max with a NaN the first operand is the result.

// below is min(x, c), NaN if x is.
func (a arch) below(x VecVirtual, c float64) VecVirtual {
	v := a.set(a.c(c))
	a.min(x, v, v)
	return v
}

// above is max(x, c), NaN if x is.
func (a arch) above(x VecVirtual, c float64) VecVirtual {
	v := a.set(a.c(c))
	a.max(x, v, v)
	return v
}

func (a arch) abs(x VecVirtual) VecVirtual {
	v := a.set(a.signBit())
	a.andn(x, v, v)
	return v
}

// expNegAbs is e^-|x|.
func (a arch) expNegAbs(x VecVirtual) VecVirtual {
	y := a.below(a.abs(x), a.big())
	a.xor(a.signBit(), y, y)
	return a.exp(y)
}

// sigmoids are σ(x) and σ(-x).
func (a arch) sigmoids(x VecVirtual) (s, other VecVirtual) {
	e, one := a.expNegAbs(x), a.set(a.c(1))
	sum := a.vec()
	a.add(e, one, sum)
	s, other = a.vec(), a.vec()
	a.bySign(x, e, one, s)
	a.bySign(x, one, e, other)
	a.div(sum, s, s)
	a.div(sum, other, other)
	return s, other
}

func (a arch) sigmoid(x VecVirtual) VecVirtual {
	e, one := a.expNegAbs(x), a.set(a.c(1))
	s := a.vec()
	a.bySign(x, e, one, s)
	a.add(e, one, one)
	a.div(one, s, s)
	return s
}

// positive is 1 where x > 0, else 0, NaN if x is.
func (a arch) positive(x VecVirtual) VecVirtual {
	huge := math.Ldexp(1, 100)
	if !a.f32() {
		huge = math.Ldexp(1, 600)
	}
	v := a.above(x, 0)
	a.mul(a.c(huge), v, v) // twice, for the smallest numbers
	a.mul(a.c(huge), v, v)
	return a.below(v, 1)
}

// geluArg is u = 2√(2/π)·x·(1 + 0.044715x²).
func (a arch) geluArg(x VecVirtual) VecVirtual {
	u := a.vec()
	a.mul(x, x, u)
	a.mul(a.c(0.044715), u, u)
	a.add(a.c(1), u, u)
	a.mul(x, u, u)
	a.mul(a.c(2*math.Sqrt2/math.SqrtPi), u, u)
	return u
}

// normal is what the normal distribution function Φ is made of: t = |x|, or where Φ(-t)
// is 0 for good, e = exp(-t²/2), and m with Φ(-t) = e·m.
func (a arch) normal(x VecVirtual) (t, e, m VecVirtual) {
	// m·(t+k) is a polynomial in q = (t-k)/(t+k) (Shepherd and Laframboise 1981), from its
	// Chebyshev series; it is off by 1.2e-9 and 3.8e-17.
	k, most, poly := 4.0, 38.72, millsF64[:]
	if a.f32() {
		k, most, poly = 3, 14.49, millsF32[:]
	}
	t = a.below(a.abs(x), most)
	// exp(-t²/2) would lose what t² loses in rounding, which is taken from t² afterwards.
	sq, lost := a.vec(), a.vec()
	a.mul(t, t, sq)
	a.mov(sq, lost)
	a.fnma(t, t, lost)
	a.mul(a.c(-0.5), sq, sq)
	a.mul(a.c(0.5), lost, lost)
	e = a.exp(sq)
	a.fma(e, lost, e)
	sum, q := a.vec(), a.vec()
	a.add(a.c(k), t, sum)
	a.sub(a.c(k), t, q)
	a.div(sum, q, q)
	m = a.set(a.c(poly[len(poly)-1]))
	for i := len(poly) - 2; i >= 0; i-- {
		a.horner(a.c(poly[i]), q, m)
	}
	a.div(sum, m, m)
	return t, e, m
}

var millsF32 = [...]float64{
	0.729083690418116, -0.5093319937629216, 0.23001769702294592, -0.0472626334395628,
	-0.010462480762852137, 0.006968967800980101, 0.001024555680113916, -0.0010317572799017566,
	-0.0002441916584956053, 0.00013066663364979123, 5.3980368755679944e-05,
}

var millsF64 = [...]float64{
	0.7552851304157515, -0.6078966419718917, 0.38713740074221864, -0.1865218579596931,
	0.06039657489071089, -0.007540188965618229, -0.0034796923624554007, 0.0016308184421323004,
	0.00013334425604695756, -0.0002310948193312271, -1.9078776618173895e-06, 3.5144181873478755e-05,
	7.150426891416593e-07, -5.918883105109069e-06, -6.252076848136394e-07, 1.0197652099657883e-06,
	2.6377241441091893e-07, -1.5419307395221746e-07, -7.643383602749282e-08, 1.4517690035349443e-08,
	1.3929419993436448e-08, 9.387260467669922e-11, -9.595484550041656e-10,
}

// values are the activations by their names in package mlp.
func (a arch) values() []struct {
	name string
	of   func(x VecVirtual) VecVirtual
} {
	return []struct {
		name string
		of   func(x VecVirtual) VecVirtual
	}{
		{"Tanh", func(x VecVirtual) VecVirtual {
			// expm1(2|x|) / (expm1(2|x|) + 2), which is 1 from lim on, with x's sign.
			lim := 20.0
			if a.f32() {
				lim = 9.02
			}
			y := a.below(a.abs(x), lim)
			a.add(y, y, y)
			e := a.expm1(y)
			sum, sign := a.vec(), a.vec()
			a.add(a.c(2), e, sum)
			a.div(sum, e, e)
			a.and(a.signBit(), x, sign)
			a.or(sign, e, e)
			return e
		}},
		{"Sigmoid", a.sigmoid},
		{"ReLU", func(x VecVirtual) VecVirtual { return a.above(x, 0) }},
		{"LeakyReLU", func(x VecVirtual) VecVirtual {
			p, n := a.above(x, 0), a.below(x, 0)
			a.fma(a.c(0.01), n, p)
			return p
		}},
		{"ELU", func(x VecVirtual) VecVirtual {
			e := a.expm1(a.below(a.above(x, -a.big()/2), 0))
			a.bySign(x, e, x, e)
			return e
		}},
		{"Softplus", func(x VecVirtual) VecVirtual {
			// max(x, 0) + log1p(e), log1p(e) = 2·atanh(s), s = e/(2+e) ≤ 1/3.
			e := a.expNegAbs(x)
			s, z := a.vec(), a.vec()
			a.add(a.c(2), e, s)
			a.div(s, e, s)
			a.mul(s, s, z)
			terms := 17
			if a.f32() {
				terms = 8
			}
			p := a.set(a.c(1 / float64(2*terms-1)))
			for i := terms - 1; i > 0; i-- {
				a.horner(a.c(1/float64(2*i-1)), z, p)
			}
			a.add(s, s, s)
			most := a.above(x, 0)
			a.horner(most, s, p)
			return p
		}},
		{"SiLU", func(x VecVirtual) VecVirtual {
			s := a.sigmoid(x)
			x = a.above(x, -a.big())
			a.mul(x, s, s)
			return s
		}},
		{"GELU", func(x VecVirtual) VecVirtual {
			// max(x, 0) - |x|·Φ(-|x|): no digits are lost on either side.
			t, e, m := a.normal(x)
			a.mul(t, m, m)
			most := a.above(x, 0)
			a.fnma(e, m, most)
			return most
		}},
		{"GELUTanh", func(x VecVirtual) VecVirtual {
			s := a.sigmoid(a.geluArg(x))
			x = a.above(x, -1000)
			a.mul(x, s, s)
			return s
		}},
	}
}

// slopes are the derivatives, of x where y = σ(x).
func (a arch) slopes() []struct {
	name string
	of   func(x, y Mem, load func(Mem) VecVirtual) VecVirtual
} {
	return []struct {
		name string
		of   func(x, y Mem, load func(Mem) VecVirtual) VecVirtual
	}{
		{"Tanh", func(_, y Mem, load func(Mem) VecVirtual) VecVirtual {
			v, one := load(y), a.set(a.c(1))
			a.fnma(v, v, one)
			return one
		}},
		{"Sigmoid", func(_, y Mem, load func(Mem) VecVirtual) VecVirtual {
			v := load(y)
			s := a.vec()
			a.mov(v, s)
			a.fnma(v, v, s)
			return s
		}},
		{"ReLU", func(_, y Mem, load func(Mem) VecVirtual) VecVirtual { return a.positive(load(y)) }},
		{"LeakyReLU", func(x, _ Mem, load func(Mem) VecVirtual) VecVirtual {
			p, s := a.positive(load(x)), a.set(a.c(0.01))
			a.fma(a.c(0.99), p, s)
			return s
		}},
		{"ELU", func(_, y Mem, load func(Mem) VecVirtual) VecVirtual {
			s := a.below(load(y), 0)
			a.add(a.c(1), s, s)
			return s
		}},
		{"Softplus", func(x, _ Mem, load func(Mem) VecVirtual) VecVirtual { return a.sigmoid(load(x)) }},
		{"SiLU", func(x, _ Mem, load func(Mem) VecVirtual) VecVirtual {
			// σ(x)·(1 + x·σ(-x))
			v := load(x)
			s, other := a.sigmoids(v)
			v = a.below(a.above(v, -a.big()), a.big())
			one := a.set(a.c(1))
			a.fma(v, other, one)
			a.mul(one, s, s)
			return s
		}},
		{"GELU", func(x, _ Mem, load func(Mem) VecVirtual) VecVirtual {
			// With s = Φ(-|x|) - |x|·φ(x): s for negative x, else 1 - s.
			v := load(x)
			t, e, m := a.normal(v)
			a.fnma(a.c(1/(math.Sqrt2*math.SqrtPi)), t, m)
			a.mul(e, m, m)
			one := a.set(a.c(1))
			a.sub(m, one, one)
			a.bySign(v, m, one, m)
			return m
		}},
		{"GELUTanh", func(x, _ Mem, load func(Mem) VecVirtual) VecVirtual {
			// σ(u)·(1 + x·u'·σ(-u)); beyond ±30 the second term is nothing.
			v := a.below(a.above(load(x), -30), 30)
			s, other := a.sigmoids(a.geluArg(v))
			d := a.vec()
			a.mul(v, v, d)
			a.mul(a.c(3*0.044715), d, d)
			a.add(a.c(1), d, d)
			a.mul(a.c(2*math.Sqrt2/math.SqrtPi), d, d)
			a.mul(v, d, d)
			one := a.set(a.c(1))
			a.fma(d, other, one)
			a.mul(one, s, s)
			return s
		}},
	}
}

// each writes a loop over n elements of pointers, a vector at a time, and once more
// under a mask for what is left.
func (a arch) each(pointers []GPVirtual, n GPVirtual, body func(load func(Mem) VecVirtual, store func(VecVirtual, Mem))) {
	Label("loop")
	CMPQ(n, U32(a.lanes()))
	JL(LabelRef("rest"))
	body(a.set, func(v VecVirtual, m Mem) { a.mov(v, m) })
	for _, p := range pointers {
		ADDQ(U32(a.width), p)
	}
	SUBQ(U32(a.lanes()), n)
	JMP(LabelRef("loop"))
	Label("rest")
	TESTQ(n, n)
	JZ(LabelRef("end"))
	t := a.tail(n)
	body(t.set, t.store)
	Label("end")
}

func (a arch) activations() {
	for _, f := range a.values() {
		TEXT(fmt.Sprintf("activate%s%s", f.name, a.name), NOSPLIT, fmt.Sprintf("func(y, x *%s, n int)", a.elem()))
		Pragma("noescape")
		y, x, n := Load(Param("y"), GP64()).(GPVirtual), Load(Param("x"), GP64()).(GPVirtual), Load(Param("n"), GP64()).(GPVirtual)
		a.each([]GPVirtual{y, x}, n, func(load func(Mem) VecVirtual, store func(VecVirtual, Mem)) {
			store(f.of(load(Mem{Base: x})), Mem{Base: y})
		})
		VZEROUPPER()
		RET()
	}
	for _, f := range a.slopes() {
		TEXT(fmt.Sprintf("slope%s%s", f.name, a.name), NOSPLIT, fmt.Sprintf("func(d, x, y *%s, n int)", a.elem()))
		Pragma("noescape")
		d, x, y := Load(Param("d"), GP64()).(GPVirtual), Load(Param("x"), GP64()).(GPVirtual), Load(Param("y"), GP64()).(GPVirtual)
		n := Load(Param("n"), GP64()).(GPVirtual)
		a.each([]GPVirtual{d, x, y}, n, func(load func(Mem) VecVirtual, store func(VecVirtual, Mem)) {
			s := f.of(Mem{Base: x}, Mem{Base: y}, load)
			v := load(Mem{Base: d})
			a.mul(s, v, v)
			store(v, Mem{Base: d})
		})
		VZEROUPPER()
		RET()
	}
	a.sine()
}
