package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// transpose writes the transpose of as many rows as a vector has lanes, square by square.
func (a arch) transpose() {
	e := a.elem()
	TEXT("transpose"+a.name, NOSPLIT, "func(dst *"+e+", ldd int, src *"+e+", lds, squares int)")
	Pragma("noescape")
	Doc("transpose" + a.name + " transposes squares that lie side by side in src; strides are in bytes.")
	dst, ldd := Load(Param("dst"), GP64()).(GPVirtual), Load(Param("ldd"), GP64()).(GPVirtual)
	src, lds, n := Load(Param("src"), GP64()).(GPVirtual), Load(Param("lds"), GP64()).(GPVirtual), Load(Param("squares"), GP64()).(GPVirtual)
	Label("square")
	p := GP64()
	MOVQ(src, p)
	r := make([]VecVirtual, a.lanes())
	for i := range r {
		r[i] = a.set(Mem{Base: p})
		ADDQ(lds, p)
	}
	if a.f32() {
		r = a.transpose8(r)
	} else {
		r = a.transpose4(r)
	}
	for _, v := range r {
		a.mov(v, Mem{Base: dst})
		ADDQ(ldd, dst)
	}
	ADDQ(U32(a.width), src)
	DECQ(n)
	JNZ(LabelRef("square"))
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
