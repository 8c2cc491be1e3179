package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// square transposes as many vectors as they have lanes.
func (a arch) square(r []VecVirtual) []VecVirtual {
	if a.f32() {
		return a.transpose8(r)
	}
	return a.transpose4(r)
}

// rowPointers are where the rows of which rows has the numbers begin, stride bytes apart.
func (a arch) rowPointers(base, stride, rows string) []GPVirtual {
	list, size := GP64(), GP64()
	Load(Param(rows), list)
	Load(Param(stride), size)
	p := make([]GPVirtual, a.lanes())
	for i := range p {
		p[i] = GP64()
		MOVLQSX(Mem{Base: list, Disp: 4 * i}, p[i])
		IMULQ(size, p[i])
	}
	first := GP64()
	Load(Param(base), first)
	for i := range p {
		ADDQ(first, p[i])
	}
	return p
}

// storePieces stores the first n lanes, fewer than all, in pieces of 4, 2 and 1: a store
// under a mask takes AMD's processors tens of cycles. It destroys v and to.
func (a arch) storePieces(v VecVirtual, to GPVirtual, n GPVirtual, label string) {
	x, at := v.AsX(), Mem{Base: to}
	piece := func(lanes int, store, rest func()) {
		after := fmt.Sprintf("%s_%d", label, lanes)
		TESTQ(U32(lanes), n)
		JZ(LabelRef(after))
		store()
		if rest != nil {
			ADDQ(U32(lanes*a.size), to)
			rest()
		}
		Label(after)
	}
	upper := func() { VEXTRACTF128(Imm(1), v, x) }
	if a.f32() {
		piece(4, func() { VMOVUPS(x, at) }, upper)
		piece(2, func() { VMOVLPS(x, at) }, func() { VMOVHLPS(x, x, x) })
		piece(1, func() { VMOVSS(x, at) }, nil)
	} else {
		piece(2, func() { VMOVUPD(x, at) }, upper)
		piece(1, func() { VMOVSD(x, at) }, nil)
	}
}

// gather writes rows of a matrix as columns: element j of row i of them goes to lane i of
// row j of dst.
func (a arch) gather() {
	e := a.elem()
	TEXT("gather"+a.name, NOSPLIT, "func(dst *"+e+", ldd int, src *"+e+", lds int, rows *int32, cols, lanes int)")
	Pragma("noescape")
	Doc("gather"+a.name+" sets the first lanes of a vector in each of cols rows of dst, from rows", "of src, of which there is one for each lane of a vector. Strides are in bytes.")
	p := a.rowPointers("src", "lds", "rows")
	dst, ldd, cols := Load(Param("dst"), GP64()).(GPVirtual), Load(Param("ldd"), GP64()).(GPVirtual), Load(Param("cols"), GP64()).(GPVirtual)
	store := func(v VecVirtual, label string) {
		lanes, to := GP64(), GP64()
		Load(Param("lanes"), lanes)
		CMPQ(lanes, U32(a.lanes()))
		JL(LabelRef(label + "pieces"))
		a.mov(v, Mem{Base: dst})
		JMP(LabelRef(label + "stored"))
		Label(label + "pieces")
		MOVQ(dst, to)
		a.storePieces(v, to, lanes, label)
		Label(label + "stored")
		ADDQ(ldd, dst)
	}
	Label("squares")
	CMPQ(cols, U32(a.lanes()))
	JL(LabelRef("rest"))
	r := make([]VecVirtual, len(p))
	for i := range r {
		r[i] = a.set(Mem{Base: p[i]})
		ADDQ(U32(a.width), p[i])
	}
	for i, v := range a.square(r) {
		store(v, fmt.Sprintf("whole%d", i))
	}
	SUBQ(U32(a.lanes()), cols)
	JMP(LabelRef("squares"))
	Label("rest")
	TESTQ(cols, cols)
	JZ(LabelRef("end"))
	t := a.tail(cols)
	for i := range r {
		r[i] = a.vec()
		t.load(Mem{Base: p[i]}, r[i])
	}
	for i, v := range a.square(r) {
		store(v, fmt.Sprintf("part%d", i))
		DECQ(cols)
		JZ(LabelRef("end"))
	}
	Label("end")
	VZEROUPPER()
	RET()
}

// scatter is the way back, with a factor.
func (a arch) scatter() {
	e := a.elem()
	TEXT("scatter"+a.name, NOSPLIT, "func(dst *"+e+", ldd int, rows *int32, src *"+e+", lds int, cols, lanes int, alpha "+e+", add int)")
	Pragma("noescape")
	Doc("scatter"+a.name+" sets cols elements of rows of dst to alpha times the first lanes of rows of src,", "or adds that to them. There are as many rows as a vector has lanes; only the first lanes are", "written. Strides are in bytes.")
	p := a.rowPointers("dst", "ldd", "rows")
	src, lds, cols := Load(Param("src"), GP64()).(GPVirtual), Load(Param("lds"), GP64()).(GPVirtual), Load(Param("cols"), GP64()).(GPVirtual)
	lanes := Load(Param("lanes"), GP64()).(GPVirtual)

	// load sets r to rows of src, of which there are n or a vector's lanes.
	load := func(label string, n GPVirtual) []VecVirtual {
		t := a.tail(lanes)
		r := make([]VecVirtual, len(p))
		for i := range r {
			r[i] = a.vec()
			a.zero(r[i])
		}
		for i := range r {
			t.load(Mem{Base: src}, r[i])
			ADDQ(lds, src)
			if n != nil && i+1 < len(r) {
				CMPQ(n, U32(i+1))
				JE(LabelRef(label + "loaded"))
			}
		}
		Label(label + "loaded")
		return a.square(r)
	}
	// write takes v to row i by store, unless there are fewer.
	write := func(label string, v VecVirtual, i int, old func(VecVirtual), store func(VecVirtual)) {
		CMPQ(lanes, U32(i))
		JLE(LabelRef(label + "written"))
		alpha := a.vec()
		m, err := Param("alpha").Resolve()
		if err != nil {
			panic(err)
		}
		a.broadcast(m.Addr, alpha)
		add := GP64()
		Load(Param("add"), add)
		TESTQ(add, add)
		JZ(LabelRef(fmt.Sprintf("%s_set%d", label, i)))
		was := a.vec()
		old(was)
		a.horner(was, alpha, v) // v·alpha + was
		JMP(LabelRef(fmt.Sprintf("%s_store%d", label, i)))
		Label(fmt.Sprintf("%s_set%d", label, i))
		a.mul(alpha, v, v)
		Label(fmt.Sprintf("%s_store%d", label, i))
		store(v)
	}

	Label("squares")
	CMPQ(cols, U32(a.lanes()))
	JL(LabelRef("rest"))
	for i, v := range load("whole", nil) {
		at := Mem{Base: p[i]}
		write("whole", v, i, func(w VecVirtual) { a.mov(at, w) }, func(v VecVirtual) { a.mov(v, at) })
		ADDQ(U32(a.width), p[i])
	}
	Label("wholewritten")
	SUBQ(U32(a.lanes()), cols)
	JMP(LabelRef("squares"))
	Label("rest")
	TESTQ(cols, cols)
	JZ(LabelRef("end"))
	r := load("part", cols)
	for i, v := range r {
		write("part", v, i, func(w VecVirtual) { a.tail(cols).load(Mem{Base: p[i]}, w) }, func(v VecVirtual) {
			a.storePieces(v, p[i], cols, fmt.Sprintf("part%d", i))
		})
	}
	Label("partwritten")
	Label("end")
	VZEROUPPER()
	RET()
}

func (a arch) transpose8(r []VecVirtual) []VecVirtual {
	// Pairs, then fours within halves, then halves.
	pairs := make([]VecVirtual, 8)
	for i := 0; i < 8; i += 2 {
		pairs[i], pairs[i+1] = YMM(), YMM()
		VUNPCKLPS(r[i+1], r[i], pairs[i])
		VUNPCKHPS(r[i+1], r[i], pairs[i+1])
	}
	fours := make([]VecVirtual, 8)
	for i := 0; i < 8; i += 4 {
		for j := range 4 {
			fours[i+j] = YMM()
			lo, hi := pairs[i+j/2], pairs[i+2+j/2]
			VSHUFPS(Imm(uint64(0x44+0xaa*(j%2))), hi, lo, fours[i+j])
		}
	}
	out := make([]VecVirtual, 8)
	for j := range 4 {
		out[j], out[j+4] = YMM(), YMM()
		VPERM2F128(Imm(0x20), fours[4+j], fours[j], out[j])
		VPERM2F128(Imm(0x31), fours[4+j], fours[j], out[j+4])
	}
	return out
}

func (a arch) transpose4(r []VecVirtual) []VecVirtual {
	pairs := make([]VecVirtual, 4)
	for i := 0; i < 4; i += 2 {
		pairs[i], pairs[i+1] = YMM(), YMM()
		VUNPCKLPD(r[i+1], r[i], pairs[i])
		VUNPCKHPD(r[i+1], r[i], pairs[i+1])
	}
	out := make([]VecVirtual, 4)
	for j := range 2 {
		out[j], out[j+2] = YMM(), YMM()
		VPERM2F128(Imm(0x20), pairs[2+j], pairs[j], out[j])
		VPERM2F128(Imm(0x31), pairs[2+j], pairs[j], out[j+2])
	}
	return out
}

// peak writes a loop of nothing but fused multiply-adds, to measure others by.
func (a arch) peak() {
	const sums = 12
	TEXT("peak"+a.name, NOSPLIT, "func(n int)")
	Doc("peak" + a.name + " makes 12 independent fused multiply-adds of vectors, n times.")
	n := Load(Param("n"), GP64()).(GPVirtual)
	one := a.set(a.c(1))
	acc := make([]VecVirtual, sums)
	for i := range acc {
		acc[i] = a.vec()
		a.zero(acc[i])
	}
	Label("loop")
	for i := range acc {
		a.fma(one, one, acc[i])
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
