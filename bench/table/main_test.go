package main

import (
	"strings"
	"testing"
)

const printed = `goos: linux
goarch: amd64
pkg: example.org/m/solver
cpu: some
BenchmarkSolve/dopri5/f32/B=1-2   	     100	      2000 ns/op	        20.00 evals/solve	     512 B/op	       3 allocs/op
BenchmarkSolve/dopri5/f32/B=1-2   	     100	      4000 ns/op	        20.00 evals/solve	     512 B/op	       3 allocs/op
PASS
ok  	example.org/m/solver	1.2s
?   	example.org/m/none	[no test files]
pkg: example.org/m/cpu
BenchmarkGemm/64-2  10  1500000000 ns/op  98.5 GFLOP/s  91.2 %peak
--- FAIL: BenchmarkBroken
    x_test.go:1: why
`

func TestTable(t *testing.T) {
	rows, other, err := read(strings.NewReader(printed))
	if err != nil {
		t.Fatal(err)
	}
	if len(other) != 2 || !strings.Contains(other[1], "why") {
		t.Errorf("what is not a benchmark's: %q", other)
	}
	var out strings.Builder
	write(&out, rows, true)
	want := `
| package | benchmark | time | GFLOP/s | % of peak | bytes | allocations | besides |
| --- | --- | --- | --- | --- | --- | --- | --- |
| solver | Solve/dopri5/f32/B=1-2 | 3.00 µs |  |  | 512 | 3 | 20 evals/solve |
| cpu | Gemm/64-2 | 1.50 s | 98.5 | 91.2 |  |  |  |
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	out.Reset()
	write(&out, rows, false)
	if lines := strings.Split(out.String(), "\n"); len(lines) != 4 || strings.Index(lines[0], "time") != strings.Index(lines[1], "3.00 µs") {
		t.Errorf("the columns are not aligned:\n%s", &out)
	}
}

func TestRead_Refuses(t *testing.T) {
	if _, _, err := read(strings.NewReader("BenchmarkX 1 many ns/op\n")); err == nil || !strings.Contains(err.Error(), "many") {
		t.Error(err)
	}
}
