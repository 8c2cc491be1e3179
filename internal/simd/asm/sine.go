package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// sineLimit is where sine leaves off: a multiple of π/2 in three parts suffices up to it.
const sineLimit = 1 << 20

// sine writes sin x, and what multiplies by cos x. Where |x| is beyond sineLimit they
// leave x, or what is to be multiplied; they return whether there was such a number.
func (a arch) sine() {
	e := a.elem()
	TEXT("activateSin"+a.name, NOSPLIT, "func(y, x *"+e+", n int) uint32")
	Pragma("noescape")
	Doc("activateSin" + a.name + " is sin x up to 2^20, beyond it x itself. It returns whether there was such a number.")
	y, x, n := Load(Param("y"), GP64()).(GPVirtual), Load(Param("x"), GP64()).(GPVirtual), Load(Param("n"), GP64()).(GPVirtual)
	over := a.vec()
	a.zero(over)
	a.each([]GPVirtual{y, x}, n, func(load func(Mem) VecVirtual, store func(VecVirtual, Mem)) {
		v := load(Mem{Base: x})
		abs := a.abs(v)
		s := a.circle(abs, 0)
		sign := a.vec()
		a.and(a.signBit(), v, sign)
		a.xor(sign, s, s)
		a.within(abs, over)
		a.bySign(abs, v, s, s)
		store(s, Mem{Base: y})
	})
	a.returnSigns(over)

	TEXT("slopeSin"+a.name, NOSPLIT, "func(d, x *"+e+", n int) uint32")
	Pragma("noescape")
	Doc("slopeSin" + a.name + " multiplies d by cos x where x is up to 2^20. It returns whether there was another.")
	d, x, n := Load(Param("d"), GP64()).(GPVirtual), Load(Param("x"), GP64()).(GPVirtual), Load(Param("n"), GP64()).(GPVirtual)
	over = a.vec()
	a.zero(over)
	a.each([]GPVirtual{d, x}, n, func(load func(Mem) VecVirtual, store func(VecVirtual, Mem)) {
		abs := a.abs(load(Mem{Base: x}))
		c := a.circle(abs, 1)
		v := load(Mem{Base: d})
		a.mul(v, c, c)
		a.within(abs, over)
		a.bySign(abs, v, c, c)
		store(c, Mem{Base: d})
	})
	a.returnSigns(over)
}

// within sets the sign of abs where it is beyond sineLimit, and that of over.
func (a arch) within(abs, over VecVirtual) {
	limit := a.set(a.c(sineLimit))
	a.sub(abs, limit, abs)
	a.or(abs, over, over)
}

// returnSigns returns 0 if no sign of v is set.
func (a arch) returnSigns(v VecVirtual) {
	r := GP32()
	switch {
	case a.wide():
		k := K()
		if a.f32() {
			VPMOVD2M(v, k)
		} else {
			VPMOVQ2M(v, k)
		}
		KMOVW(k, r)
	case a.f32():
		VMOVMSKPS(v, r)
	default:
		VMOVMSKPD(v, r)
	}
	VZEROUPPER()
	Store(r, ReturnIndex(0))
	RET()
}

// circle is sin(x + quarters·π/2), x from 0 to sineLimit. For float32 it is made in float64.
func (a arch) circle(x VecVirtual, quarters float64) VecVirtual {
	if !a.f32() {
		return a.circle64(x, quarters, false)
	}
	d := arch{name: a.name, size: 8, width: a.width}
	low, high, out := d.vec(), d.vec(), a.vec()
	if a.wide() {
		half := YMM()
		VCVTPS2PD(x.AsY(), low)
		VEXTRACTF64X4(Imm(1), x, half)
		VCVTPS2PD(half, high)
		low, high = d.circle64(low, quarters, true), d.circle64(high, quarters, true)
		VCVTPD2PS(low, out.AsY())
		VCVTPD2PS(high, half)
		VINSERTF64X4(Imm(1), half, out, out)
		return out
	}
	half := XMM()
	VCVTPS2PD(x.AsX(), low)
	VEXTRACTF128(Imm(1), x, half)
	VCVTPS2PD(half, high)
	low, high = d.circle64(low, quarters, true), d.circle64(high, quarters, true)
	VCVTPD2PSY(low, out.AsX())
	VCVTPD2PSY(high, half)
	VINSERTF128(Imm(1), half, out, out)
	return out
}

// circle64 subtracts n quarters of a circle from x, n·(π/2) in parts of which the first
// has 33 bits and is exact (Cody and Waite 1980), and takes the sine or the cosine of the
// rest by the polynomials of FreeBSD's kernels k_sin.c and k_cos.c, or k_sinf.c and
// k_cosf.c if short.
func (a arch) circle64(x VecVirtual, quarters float64, short bool) VecVirtual {
	n, q := a.vec(), a.vec()
	a.mul(a.c(2/math.Pi), x, n)
	a.add(a.magic(), n, n)
	a.add(a.c(quarters), n, q)
	a.sub(a.magic(), n, n)
	r, z := a.vec(), a.vec()
	a.mov(x, r)
	a.fnma(a.c(1.5707963267341256), n, r)
	a.fnma(a.c(6.077100506506192e-11), n, r)
	sin := []float64{-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
		2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10}
	cos := []float64{4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
		-2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11}
	first := -0.5
	if short {
		sin = []float64{-0.166666666416265235595, 0.0083333293858894631756, -0.000198393348360966317347, 0.0000027183114939898219064}
		cos = []float64{0.0416666233237390631894, -0.00138867637746099294692, 0.0000243904487862774090654}
		first = -0.499999997251031003120
	} else {
		a.fnma(a.c(pi2Rest), n, r)
	}
	a.mul(r, r, z)
	series := func(c []float64) VecVirtual {
		p := a.set(a.c(c[len(c)-1]))
		for i := len(c) - 2; i >= 0; i-- {
			a.horner(a.c(c[i]), z, p)
		}
		return p
	}
	s, cube := series(sin), a.vec()
	a.mul(r, z, cube)
	a.horner(r, cube, s) // s·r³ + r
	// 1 - z/2 rounded, and what that lost, before the small terms.
	c, w, lost, square := series(cos), a.set(a.c(1)), a.set(a.c(1)), a.vec()
	a.fma(a.c(first), z, w)
	a.sub(w, lost, lost)
	a.fma(a.c(first), z, lost)
	a.mul(z, z, square)
	a.horner(lost, square, c)
	a.add(w, c, c)
	// Odd quarters take the cosine, the second half of the circle the other sign.
	odd := a.vec()
	VPSLLQ(Imm(63), q, odd)
	a.bySign(odd, c, s, s)
	VPSLLQ(Imm(62), q, q)
	a.and(a.signBit(), q, q)
	a.xor(q, s, s)
	return s
}

// pi2Rest is π/2 without what circle64 has subtracted.
const pi2Rest = 3.5215598651832e-27
