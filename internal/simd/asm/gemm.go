package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// gemm writes the product of m rows of A with nr vectors of columns of B:
//
//	C[i][j] = start + Σ_p A[i][p]·B[p][j]
//
// A block of rows at a time, whose sums stay in registers. Strides are in bytes. With
// one vector the columns may be fewer than its lanes.
func (a arch) gemm(nr int, masked bool) {
	args := fmt.Sprintf("c *%[1]s, ldc int, a *%[1]s, rsa int, csa int, b *%[1]s, ldb int, m int, k int, bias *%[1]s, mode int", a.elem())
	name := fmt.Sprintf("gemm%sx%d", a.name, nr)
	if masked {
		args += ", n int"
		name += "Tail"
	}
	TEXT(name, NOSPLIT, "func("+args+")")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s computes %d vectors of columns, see Gemm.", name, nr))
	c, ldc := Load(Param("c"), GP64()).(GPVirtual), Load(Param("ldc"), GP64()).(GPVirtual)
	pa, rsa, csa := Load(Param("a"), GP64()).(GPVirtual), Load(Param("rsa"), GP64()).(GPVirtual), Load(Param("csa"), GP64()).(GPVirtual)
	m := Load(Param("m"), GP64()).(GPVirtual)
	bias := Load(Param("bias"), GP64()).(GPVirtual)
	g := &product{arch: a, nr: nr, c: c, ldc: ldc, a: pa, rsa: rsa, csa: csa, m: m, bias: bias}
	if masked {
		g.masked = true
		g.tail = a.tail(Load(Param("n"), GP64()).(GPVirtual))
	}
	for r := g.rows(); r >= 1; r = smaller(r) {
		g.block(fmt.Sprintf("rows%d", r), r)
	}
	if a.width >= 32 {
		VZEROUPPER()
	}
	RET()
}

// smaller is the next size of block.
func smaller(r int) int {
	switch {
	case r > 8:
		return 8
	case r > 6:
		return 6
	case r > 4:
		return 4
	}
	return r / 2
}

type product struct {
	arch
	nr                     int
	masked                 bool
	tail                   tail
	c, ldc, a, rsa, csa, m GPVirtual
	bias                   GPVirtual
}

// rows is the number of rows of a block. Its sums, the vectors of B, an element of A, and
// AVX2's mask are 16 registers, or 32.
func (g *product) rows() int {
	if g.wide() {
		return 12
	}
	return 12 / g.nr
}

func (g *product) load(m Mem, v VecVirtual) {
	if g.masked {
		g.tail.load(m, v)
	} else {
		g.mov(m, v)
	}
}

func (g *product) store(v VecVirtual, m Mem, label string) {
	if g.masked {
		n, to := GP64(), GP64()
		Load(Param("n"), n)
		LEAQ(m, to)
		g.storePieces(v, to, n, label)
	} else {
		g.mov(v, m)
	}
}

// block takes r rows at a time for as long as there are so many.
func (g *product) block(label string, r int) {
	Label(label)
	CMPQ(g.m, U32(r))
	JL(LabelRef(label + "done"))

	acc := make([][]VecVirtual, r)
	for i := range acc {
		for range g.nr {
			acc[i] = append(acc[i], g.vec())
		}
	}
	// Start from the bias, from zero or from C.
	mode := GP64()
	Load(Param("mode"), mode)
	CMPQ(mode, U32(1))
	JE(LabelRef(label + "fromC"))
	TESTQ(g.bias, g.bias)
	JZ(LabelRef(label + "fromZero"))
	for i := range acc {
		g.broadcast(Mem{Base: g.bias, Disp: i * g.size}, acc[i][0])
		for j := 1; j < g.nr; j++ {
			g.mov(acc[i][0], acc[i][j])
		}
	}
	ADDQ(U32(r*g.size), g.bias)
	JMP(LabelRef(label + "sum"))
	Label(label + "fromZero")
	for i := range acc {
		for j := range acc[i] {
			g.zero(acc[i][j])
		}
	}
	JMP(LabelRef(label + "sum"))
	Label(label + "fromC")
	row := GP64()
	MOVQ(g.c, row)
	for i := range acc {
		for j := range acc[i] {
			g.load(Mem{Base: row, Disp: j * g.width}, acc[i][j])
			// Rows far apart are no pattern that the processor foresees: the columns after these.
			if j*g.width%64 == 0 {
				PREFETCHT1(Mem{Base: row, Disp: (g.nr + j) * g.width})
			}
		}
		if i+1 < r {
			ADDQ(g.ldc, row)
		}
	}
	Label(label + "sum")
	// Pointers to every third row of A.
	var rows []GPVirtual
	for i := 0; i < r; i += 3 {
		p := GP64()
		if i == 0 {
			MOVQ(g.a, p)
		} else {
			LEAQ(Mem{Base: rows[len(rows)-1], Index: g.rsa, Scale: 2}, p)
			ADDQ(g.rsa, p)
		}
		rows = append(rows, p)
	}
	b, ldb, k := GP64(), GP64(), GP64()
	Load(Param("b"), b)
	Load(Param("ldb"), ldb)
	Load(Param("k"), k)
	TESTQ(k, k)
	JZ(LabelRef(label + "store"))
	Label(label + "loop")
	vb := make([]VecVirtual, g.nr)
	for j := range vb {
		vb[j] = g.vec()
		g.load(Mem{Base: b, Disp: j * g.width}, vb[j])
	}
	ADDQ(ldb, b)
	// Where A is stored by columns, every step reads a line of its own that the next block
	// of rows needs again: no pattern that the processor foresees in wide matrices.
	if r == g.rows() {
		for last := 2*r*g.size - 1; last >= r*g.size; last -= 64 {
			PREFETCHT0(Mem{Base: rows[0], Disp: last})
		}
	}
	va := g.vec()
	for i := range acc {
		at := Mem{Base: rows[i/3]}
		if i%3 > 0 {
			at.Index, at.Scale = g.rsa, uint8(i%3)
		}
		g.broadcast(at, va)
		for j := range vb {
			g.fma(vb[j], va, acc[i][j])
		}
	}
	for _, p := range rows {
		ADDQ(g.csa, p)
	}
	DECQ(k)
	JNZ(LabelRef(label + "loop"))
	Label(label + "store")
	for i := range acc {
		for j := range acc[i] {
			g.store(acc[i][j], Mem{Base: g.c, Disp: j * g.width}, fmt.Sprintf("%s_store%d", label, i))
		}
		ADDQ(g.ldc, g.c)
	}
	// The next rows.
	step := GP64()
	MOVQ(g.rsa, step)
	IMUL3Q(U32(r), step, step)
	ADDQ(step, g.a)
	SUBQ(U32(r), g.m)
	JMP(LabelRef(label))
	Label(label + "done")
}
