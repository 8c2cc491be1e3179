package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// arch is an instruction set with a type of elements.
type arch struct {
	name  string
	size  int // bytes of an element
	width int // bytes of a vector
}

func (a arch) f32() bool  { return a.size == 4 }
func (a arch) wide() bool { return a.width == 64 } // AVX-512
func (a arch) lanes() int { return a.width / a.size }

func (a arch) elem() string {
	if a.f32() {
		return "float32"
	}
	return "float64"
}

// vec is a register for a vector.
func (a arch) vec() VecVirtual {
	if a.wide() {
		return ZMM()
	}
	return YMM()
}

func pick(f32 bool, ps, pd func(...Op)) func(...Op) {
	if f32 {
		return ps
	}
	return pd
}

// Arithmetic, in the order of Go's assembler: the last operand is the destination.

func (a arch) add(ops ...Op)     { pick(a.f32(), VADDPS, VADDPD)(ops...) }
func (a arch) sub(ops ...Op)     { pick(a.f32(), VSUBPS, VSUBPD)(ops...) }
func (a arch) mul(ops ...Op)     { pick(a.f32(), VMULPS, VMULPD)(ops...) }
func (a arch) div(ops ...Op)     { pick(a.f32(), VDIVPS, VDIVPD)(ops...) }
func (a arch) min(ops ...Op)     { pick(a.f32(), VMINPS, VMINPD)(ops...) }
func (a arch) max(ops ...Op)     { pick(a.f32(), VMAXPS, VMAXPD)(ops...) }
func (a arch) and(ops ...Op)     { pick(a.f32(), VANDPS, VANDPD)(ops...) }
func (a arch) andn(ops ...Op)    { pick(a.f32(), VANDNPS, VANDNPD)(ops...) }
func (a arch) or(ops ...Op)      { pick(a.f32(), VORPS, VORPD)(ops...) }
func (a arch) xor(ops ...Op)     { pick(a.f32(), VXORPS, VXORPD)(ops...) }
func (a arch) mov(ops ...Op)     { pick(a.f32(), VMOVUPS, VMOVUPD)(ops...) }
func (a arch) fma(ops ...Op)     { pick(a.f32(), VFMADD231PS, VFMADD231PD)(ops...) }
func (a arch) fnma(ops ...Op)    { pick(a.f32(), VFNMADD231PS, VFNMADD231PD)(ops...) }
func (a arch) horner(ops ...Op)  { pick(a.f32(), VFMADD213PS, VFMADD213PD)(ops...) }
func (a arch) zero(v VecVirtual) { a.xor(v, v, v) }

// broadcast sets v to the element at m.
func (a arch) broadcast(m Op, v VecVirtual) {
	if a.f32() {
		VBROADCASTSS(m, v)
	} else {
		VBROADCASTSD(m, v)
	}
}

// tail is a mask for the lanes of the last vector.
type tail struct {
	a arch
	v VecVirtual // AVX2
	k OpmaskVirtual
}

// tail makes the mask of n lanes, which is in a 64-bit register.
func (a arch) tail(n GPVirtual) tail {
	t := tail{a: a}
	if a.wide() {
		all, one := GP64(), GP64()
		t.k = K()
		MOVQ(U64(1), one)
		MOVQ(n, RCX)
		SHLQ(CL, one)
		MOVQ(one, all)
		DECQ(all)
		KMOVW(all.As32(), t.k)
		return t
	}
	// A window of a table of ones and zeros.
	table := a.maskTable()
	from := GP64()
	MOVQ(U64(a.lanes()), from)
	SUBQ(n, from)
	base := GP64()
	LEAQ(table, base)
	t.v = a.vec()
	a.mov(Mem{Base: base, Index: from, Scale: uint8(a.size)}, t.v)
	return t
}

// set is a register with the lanes of the mask from m, and 0 in the others.
func (t tail) set(m Mem) VecVirtual {
	v := t.a.vec()
	t.load(m, v)
	return v
}

func (t tail) load(m Mem, v VecVirtual) {
	switch {
	case t.a.wide() && t.a.f32():
		VMOVUPS_Z(m, t.k, v)
	case t.a.wide():
		VMOVUPD_Z(m, t.k, v)
	case t.a.f32():
		VMASKMOVPS(m, t.v, v)
	default:
		VMASKMOVPD(m, t.v, v)
	}
}

func (t tail) store(v VecVirtual, m Mem) {
	switch {
	case t.a.wide() && t.a.f32():
		VMOVUPS(v, t.k, m)
	case t.a.wide():
		VMOVUPD(v, t.k, m)
	case t.a.f32():
		VMASKMOVPS(v, t.v, m)
	default:
		VMASKMOVPD(v, t.v, m)
	}
}

var tables = map[string]Mem{}

// maskTable is a vector of ones, then one of zeros.
func (a arch) maskTable() Mem {
	name := fmt.Sprintf("mask%d", a.size)
	if m, ok := tables[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 2 * a.lanes() {
		x := uint64(0)
		if i < a.lanes() {
			x = math.MaxUint64
		}
		if a.f32() {
			DATA(i*4, U32(uint32(x)))
		} else {
			DATA(i*8, U64(x))
		}
	}
	tables[name] = m
	return m
}

// bits is a vector of equal elements with these bits, in memory.
func (a arch) bits(x uint64) Mem {
	name := fmt.Sprintf("c%d_%x", a.size, x)
	if m, ok := tables[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 64 / a.size {
		if a.f32() {
			DATA(i*4, U32(uint32(x)))
		} else {
			DATA(i*8, U64(x))
		}
	}
	tables[name] = m
	return m
}

// c is a vector of x, in memory.
func (a arch) c(x float64) Mem {
	if a.f32() {
		return a.bits(uint64(math.Float32bits(float32(x))))
	}
	return a.bits(math.Float64bits(x))
}

func (a arch) signBit() Mem {
	if a.f32() {
		return a.bits(1 << 31)
	}
	return a.bits(1 << 63)
}

// set is a register with the vector at m.
func (a arch) set(m Mem) VecVirtual {
	v := a.vec()
	a.mov(m, v)
	return v
}

// bySign sets dst to neg where the sign of x is set, else to pos.
func (a arch) bySign(x, neg, pos, dst VecVirtual) {
	switch {
	case a.wide() && a.f32():
		k := K()
		VPMOVD2M(x, k)
		VBLENDMPS(neg, pos, k, dst)
	case a.wide():
		k := K()
		VPMOVQ2M(x, k)
		VBLENDMPD(neg, pos, k, dst)
	case a.f32():
		VBLENDVPS(x, neg, pos, dst)
	default:
		VBLENDVPD(x, neg, pos, dst)
	}
}
