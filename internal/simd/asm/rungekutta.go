package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// sliceSize is the distance of slices in a slice of them.
const sliceSize = 24

// combine writes dst[i] = y[i] + h[i]·Σ_j c[j]·k[j][i], four vectors at a time.
func (a arch) combine() {
	e := a.elem()
	TEXT("combine"+a.name, NOSPLIT, "func(dst, y, h *"+e+", each int, c *"+e+", k *[]"+e+", terms, n int)")
	Pragma("noescape")
	Doc("combine" + a.name + " is Combine; with each 0 there is one h, else as many as elements.")
	dst, y, h := Load(Param("dst"), GP64()).(GPVirtual), Load(Param("y"), GP64()).(GPVirtual), Load(Param("h"), GP64()).(GPVirtual)
	each := Load(Param("each"), GP64()).(GPVirtual)
	n := Load(Param("n"), GP64()).(GPVirtual)
	at := GP64() // bytes done
	XORQ(at, at)
	vh := a.vec()
	a.broadcast(Mem{Base: h}, vh)
	// The factor is the same for all, or a vector of its own: two loops.
	TESTQ(each, each)
	JNZ(LabelRef("each"))
	a.combineLoop("one", dst, y, h, at, n, vh)
	Label("each")
	a.combineLoop("own", dst, y, h, at, n, nil)
}

// terms writes a loop over the terms of a sum: with the coefficient in a vector, and where
// the term's slice begins, add adds it. Coefficients are of the parameter coef; skipZero
// leaves out terms whose coefficient is 0.
func (a arch) terms(label, coef string, skipZero bool, add func(p GPVirtual, coef VecVirtual)) {
	c, k, terms := GP64(), GP64(), GP64()
	Load(Param(coef), c)
	Load(Param("k"), k)
	Load(Param("terms"), terms)
	TESTQ(terms, terms)
	JZ(LabelRef(label + "summed"))
	Label(label + "term")
	if skipZero {
		zero := GP64() // or -0
		MOVQ(Mem{Base: c}, zero)
		ADDQ(zero, zero)
		JZ(LabelRef(label + "next"))
	}
	p, vc := GP64(), a.vec()
	MOVQ(Mem{Base: k}, p)
	a.broadcast(Mem{Base: c}, vc)
	add(p, vc)
	if skipZero {
		Label(label + "next")
	}
	ADDQ(U32(sliceSize), k)
	ADDQ(U32(a.size), c)
	DECQ(terms)
	JNZ(LabelRef(label + "term"))
	Label(label + "summed")
}

// vectors are so many registers that hold 0.
func (a arch) vectors(n int) []VecVirtual {
	v := make([]VecVirtual, n)
	for i := range v {
		v[i] = a.vec()
		a.zero(v[i])
	}
	return v
}

// blocks writes loops over n elements, four vectors at a time and then one. at moves by
// step with every vector.
func (a arch) blocks(label string, n, at GPVirtual, step int, block func(label string, vectors int)) {
	for _, vectors := range []int{4, 1} {
		l := fmt.Sprintf("%s%d", label, vectors)
		Label(l)
		CMPQ(n, U32(vectors*a.lanes()))
		JL(LabelRef(l + "done"))
		block(l, vectors)
		ADDQ(U32(vectors*step), at)
		SUBQ(U32(vectors*a.lanes()), n)
		JMP(LabelRef(l))
		Label(l + "done")
	}
}

// combineLoop ends the function.
func (a arch) combineLoop(label string, dst, y, h, at, n GPVirtual, vh VecVirtual) {
	block := func(label string, vectors int, load func(Mem) VecVirtual, store func(VecVirtual, Mem)) {
		acc := a.vectors(vectors)
		a.terms(label, "c", false, func(p GPVirtual, c VecVirtual) {
			for i := range acc {
				a.fma(load(Mem{Base: p, Index: at, Scale: 1, Disp: i * a.width}), c, acc[i])
			}
		})
		for i := range acc {
			f := vh
			if f == nil {
				f = load(Mem{Base: h, Index: at, Scale: 1, Disp: i * a.width})
			}
			v := load(Mem{Base: y, Index: at, Scale: 1, Disp: i * a.width})
			a.fma(acc[i], f, v)
			store(v, Mem{Base: dst, Index: at, Scale: 1, Disp: i * a.width})
		}
	}
	a.blocks(label, n, at, a.width, func(label string, vectors int) {
		block(label, vectors, a.set, func(v VecVirtual, m Mem) { a.mov(v, m) })
	})
	TESTQ(n, n)
	JZ(LabelRef(label + "end"))
	t := a.tail(n)
	block(label+"rest", 1, t.set, t.store)
	Label(label + "end")
	VZEROUPPER()
	RET()
}

// errors writes the squares of the error estimates over their tolerances, in float64:
// several vectors at a time, or what their sums wait for is the adders.
func (a arch) errors() {
	d := arch{name: a.name, size: 8, width: a.width}
	e := a.elem()
	TEXT("errorSquares"+a.name, NOSPLIT, "func(sq *float64, y0, y1 *"+e+", h *float64, each int, e *float64, k *[]"+e+", terms, n int, atol, rtol float64)")
	Pragma("noescape")
	Doc("errorSquares" + a.name + " is ErrorSquares; with each 0 there is one h, else as many as elements.")
	sq, y0, y1 := Load(Param("sq"), GP64()).(GPVirtual), Load(Param("y0"), GP64()).(GPVirtual), Load(Param("y1"), GP64()).(GPVirtual)
	h, each, n := Load(Param("h"), GP64()).(GPVirtual), Load(Param("each"), GP64()).(GPVirtual), Load(Param("n"), GP64()).(GPVirtual)
	at := GP64() // elements done
	XORQ(at, at)
	atol, rtol := d.vec(), d.vec()
	x := XMM()
	Load(Param("atol"), x)
	VBROADCASTSD(x, atol)
	Load(Param("rtol"), x)
	VBROADCASTSD(x, rtol)

	// load is vector i of p in float64.
	block := func(label string, vectors int, load func(p GPVirtual, i int) VecVirtual, own func(p GPVirtual, i int, v VecVirtual), store func(VecVirtual, Mem)) {
		est := d.vectors(vectors)
		d.terms(label, "e", true, func(p GPVirtual, e VecVirtual) {
			for i := range est {
				d.fma(load(p, i), e, est[i])
			}
		})
		for i, s := range est {
			vh := d.vec()
			d.broadcast(Mem{Base: h}, vh)
			one := fmt.Sprintf("%sone%d", label, i)
			TESTQ(each, each)
			JZ(LabelRef(one))
			own(h, i, vh)
			Label(one)
			d.mul(vh, s, s)
			v0, v1 := load(y0, i), load(y1, i)
			// Minus itself is 0, or NaN for what is not finite.
			z := d.vec()
			d.sub(v0, v0, z)
			d.add(z, s, s)
			d.sub(v1, v1, z)
			d.add(z, s, s)
			d.mov(d.signBit(), z)
			d.andn(v0, z, v0)
			d.andn(v1, z, v1)
			d.max(v0, v1, v1)
			d.mul(rtol, v1, v1)
			d.add(atol, v1, v1)
			d.divNonzero(v1, s)
			d.mul(s, s, s)
			store(s, Mem{Base: sq, Index: at, Scale: 8, Disp: i * d.width})
		}
	}
	elem := func(p GPVirtual, i int) Mem {
		return Mem{Base: p, Index: at, Scale: uint8(a.size), Disp: i * d.lanes() * a.size}
	}
	whole := func(p GPVirtual, i int) VecVirtual {
		v := d.vec()
		if a.f32() {
			VCVTPS2PD(elem(p, i), v)
		} else {
			d.mov(elem(p, i), v)
		}
		return v
	}
	d.blocks("by", n, at, d.lanes(), func(label string, vectors int) {
		block(label, vectors, whole, func(p GPVirtual, i int, v VecVirtual) {
			d.mov(Mem{Base: p, Index: at, Scale: 8, Disp: i * d.width}, v)
		}, func(v VecVirtual, m Mem) { d.mov(v, m) })
	})
	TESTQ(n, n)
	JZ(LabelRef("end"))
	t := d.tail(n)
	narrow := t
	if a.f32() && !a.wide() { // a mask for half a vector, of the elements as they lie
		narrow = arch{size: 4, width: 32}.tail(n)
	}
	block("rest", 1, func(p GPVirtual, i int) VecVirtual {
		v := d.vec()
		switch {
		case !a.f32():
			t.load(elem(p, i), v)
		case a.wide():
			VCVTPS2PD_Z(elem(p, i), t.k, v)
		default:
			VMASKMOVPS(elem(p, i), narrow.v.AsX(), v.AsX())
			VCVTPS2PD(v.AsX(), v)
		}
		return v
	}, func(p GPVirtual, i int, v VecVirtual) { t.load(Mem{Base: p, Index: at, Scale: 8}, v) }, t.store)
	Label("end")
	VZEROUPPER()
	RET()
}

// divNonzero divides x, where it is not 0, by v.
func (a arch) divNonzero(v, x VecVirtual) {
	const differ = 4 // or are not ordered
	if a.wide() {
		k := K()
		zero := a.vec()
		a.zero(zero)
		VCMPPD(Imm(differ), zero, x, k)
		VDIVPD_Z(v, x, k, x)
		return
	}
	nonzero := a.vec()
	a.zero(nonzero)
	VCMPPD(Imm(differ), nonzero, x, nonzero)
	a.div(v, x, x)
	a.and(nonzero, x, x)
}

// sums writes the sum and the largest of float64s, four sums side by side.
func (a arch) sums() {
	TEXT("sumMax"+a.name, NOSPLIT, "func(x *float64, n int, sums, most *float64)")
	Pragma("noescape")
	Doc("sumMax" + a.name + " adds x to four sums, the largest to four of these, for n a multiple of 4.")
	x, n := Load(Param("x"), GP64()).(GPVirtual), Load(Param("n"), GP64()).(GPVirtual)
	sum, most := a.vec(), a.vec()
	a.zero(sum)
	a.zero(most)
	Label("loop")
	v := a.set(Mem{Base: x})
	a.add(v, sum, sum)
	a.max(v, most, most)
	ADDQ(U32(a.width), x)
	SUBQ(U32(a.lanes()), n)
	JNZ(LabelRef("loop"))
	to := GP64()
	Load(Param("sums"), to)
	a.mov(sum, Mem{Base: to})
	Load(Param("most"), to)
	a.mov(most, Mem{Base: to})
	VZEROUPPER()
	RET()
}

// rowSums writes dst[i] += Σ_j x[i][j], each row's sum side by side in a vector's lanes.
func (a arch) rowSums() {
	e := a.elem()
	TEXT("rowSums"+a.name, NOSPLIT, "func(dst, x *"+e+", ld, m, n int)")
	Pragma("noescape")
	Doc("rowSums" + a.name + " is AddRowSums; ld is in bytes.")
	dst, x, ld := Load(Param("dst"), GP64()).(GPVirtual), Load(Param("x"), GP64()).(GPVirtual), Load(Param("ld"), GP64()).(GPVirtual)
	m, n := Load(Param("m"), GP64()).(GPVirtual), Load(Param("n"), GP64()).(GPVirtual)
	rest := GP64()
	MOVQ(n, rest)
	ANDQ(U32(a.lanes()-1), rest)
	t := a.tail(rest)
	SUBQ(rest, n)
	Label("row")
	sum := a.vec()
	a.zero(sum)
	p, left := GP64(), GP64()
	MOVQ(x, p)
	MOVQ(n, left)
	TESTQ(left, left)
	JZ(LabelRef("rest"))
	Label("loop")
	a.add(Mem{Base: p}, sum, sum)
	ADDQ(U32(a.width), p)
	SUBQ(U32(a.lanes()), left)
	JNZ(LabelRef("loop"))
	Label("rest")
	TESTQ(rest, rest)
	JZ(LabelRef("summed"))
	v := a.vec()
	t.load(Mem{Base: p}, v)
	a.add(v, sum, sum)
	Label("summed")
	low, high := XMM(), XMM()
	if a.f32() {
		VEXTRACTF128(Imm(1), sum, high)
		VADDPS(high, sum.AsX(), low)
		VMOVHLPS(low, low, high)
		VADDPS(high, low, low)
		VMOVSHDUP(low, high)
		VADDSS(high, low, low)
		VADDSS(Mem{Base: dst}, low, low)
		VMOVSS(low, Mem{Base: dst})
	} else {
		VEXTRACTF128(Imm(1), sum, high)
		VADDPD(high, sum.AsX(), low)
		VUNPCKHPD(low, low, high)
		VADDSD(high, low, low)
		VADDSD(Mem{Base: dst}, low, low)
		VMOVSD(low, Mem{Base: dst})
	}
	ADDQ(U32(a.size), dst)
	ADDQ(ld, x)
	DECQ(m)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}
