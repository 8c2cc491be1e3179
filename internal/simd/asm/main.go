// Command asm writes the assembly of package simd: go generate runs it there.
package main

import (
	. "github.com/mmcloughlin/avo/build"
)

func main() {
	ConstraintExpr("!noasm")
	for _, a := range []arch{
		{name: "F32AVX2", size: 4, width: 32},
		{name: "F64AVX2", size: 8, width: 32},
		{name: "F32AVX512", size: 4, width: 64},
		{name: "F64AVX512", size: 8, width: 64},
	} {
		a.gemm(2, false)
		if !a.wide() { // few columns leave vectors of 64 bytes half empty
			a.gemm(1, false)
			a.gemm(1, true)
		}
		a.activations()
		a.errors()
		a.peak()
	}
	for _, a := range []arch{{name: "F32AVX2", size: 4, width: 32}, {name: "F64AVX2", size: 8, width: 32}} {
		a.combine()
		a.rowSums()
		a.gather()
		a.scatter()
	}
	arch{name: "AVX2", size: 8, width: 32}.sums()
	Generate()
}
