package backendtest

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

func memoryCases[T backend.Float]() (all []testCase[T]) {
	for _, sh := range shapes {
		all = append(all, testCase[T]{fmt.Sprintf("Upload/%dx%d", sh[0], sh[1]), func(s *suite[T]) { transfer(s, sh[0], sh[1]) }})
	}
	return append(all,
		testCase[T]{"NewVec/zeroed", newVecZeroed[T]},
		testCase[T]{"NewVec/without elements", newVecEmpty[T]},
		testCase[T]{"NewVec/too large", newVecTooLarge[T]},
		testCase[T]{"Upload/src is copied at once", uploadCopies[T]},
		testCase[T]{"Upload/bits", uploadBits[T]},
		testCase[T]{"Block/nested", blockNested[T]},
		testCase[T]{"MemoryUsed/counts", memoryCounts[T]},
		testCase[T]{"Name/says something", func(s *suite[T]) {
			if s.Name() == "" {
				s.Errorf("Name is empty")
			}
		}},
		testCase[T]{"Close/then everything", closed[T]},
		testCase[T]{"Close/with everything in use", closeInUse[T]},
	)
}

// transfer moves blocks and whole Vecs to and fro.
func transfer[T backend.Float](s *suite[T], rows, cols int) {
	v := s.newVec(3, rows, cols)
	if blocks, r, c := v.Shape(); blocks != 3 || r != rows || c != cols {
		s.Errorf("Shape: %d×%d×%d, want 3×%d×%d", blocks, r, c, rows, cols)
	}
	n := rows * cols
	host := s.random(3 * n)
	same := func(verb string) {
		s.Helper()
		s.equalBits(verb, s.download(v), host, "is right")
		for i := range 3 {
			s.equalBits(fmt.Sprintf("%s, Block(%d)", verb, i), s.download(v.Block(i)), host[i*n:(i+1)*n], "is right")
		}
	}
	s.Upload(v, host)
	same("Upload")
	copy(host[n:2*n], s.random(n))
	s.Upload(v.Block(1), host[n:2*n])
	same("Upload to a block")
	s.Copy(v.Block(2), v.Block(0))
	copy(host[2*n:], host[:n])
	same("Copy of a block")
	s.Zero(v.Block(1))
	clear(host[n : 2*n])
	same("Zero of a block")

	w := s.newVec(3, rows, cols)
	s.Copy(w, v)
	s.Zero(v)
	s.equalBits("Copy", s.download(w), host, "is right")
	clear(host)
	same("Zero")
}

// newVecZeroed allocates where other contents may have been.
func newVecZeroed[T backend.Float](s *suite[T]) {
	for _, sh := range shapes {
		for range 3 {
			v, err := s.NewVec(2, sh[0], sh[1])
			s.noError("NewVec", err)
			for i, x := range s.download(v) {
				if x != 0 {
					s.fatalf("NewVec(2, %d, %d): element %d is %g", sh[0], sh[1], i, x)
				}
			}
			s.Upload(v, fill[T](2*sh[0]*sh[1], math.NaN()))
			s.Free(v)
		}
	}
}

// newVecEmpty uses Vecs without elements wherever one may come along.
func newVecEmpty[T backend.Float](s *suite[T]) {
	for _, sh := range [][3]int{{1, 1, 0}, {0, 5, 3}, {2, 0, 3}, {1, 3, 0}} {
		v, w := s.newVec(sh[0], sh[1], sh[2]), s.newVec(sh[0], sh[1], sh[2])
		if blocks, rows, cols := v.Shape(); [3]int{blocks, rows, cols} != sh {
			s.Errorf("Shape: %d×%d×%d, want %v", blocks, rows, cols, sh)
		}
		s.Upload(v, nil)
		s.Copy(v, w)
		s.Zero(v)
		s.noError("Download", s.Download(nil, v))
		clk := s.fresh(1).clk
		at := backend.At{Clock: clk, Rows: backend.Running}
		s.Combine(v, w, at, []float64{1}, []backend.Vec[T]{w})
		s.Commit(clk, backend.Running, []backend.Move[T]{{Dst: v, Src: w}})
		s.ErrorRatio(clk, errorTol, []float64{1}, nil, []backend.Part[T]{{Y0: v, Y1: w, K: []backend.Vec[T]{w}}})
		s.Advance(clk, stock)
		var l [1]backend.Lane
		s.noError("Lanes", s.Lanes(clk, l[:]))
		if l[0].Accepted != 1 {
			s.Errorf("ErrorRatio of %v: accepted %d steps, want 1: no component, no error", sh, l[0].Accepted)
		}
	}
}

func newVecTooLarge[T backend.Float](s *suite[T]) {
	for _, sh := range [][3]int{{1 << 20, 1 << 20, 1 << 20}, {1, 1 << 30, 1 << 30}, {1 << 30, 1 << 30, 1 << 30}} {
		if v, err := s.NewVec(sh[0], sh[1], sh[2]); !errors.Is(err, backend.ErrOutOfMemory) || v != nil {
			s.Errorf("NewVec%v: %v, %v; want nil, ErrOutOfMemory", sh, v, err)
		}
	}
	transfer(s, 3, 2) // still usable
}

func uploadCopies[T backend.Float](s *suite[T]) {
	for _, n := range []int{1, 100, 100_000} {
		v := s.newVec(1, 1, n)
		src := s.random(n)
		want := append([]T(nil), src...)
		s.Upload(v, src)
		clear(src)
		s.equalBits("Upload, after src changed", s.download(v), want, "was uploaded")
	}
}

// uploadBits moves numbers that arithmetic would change.
func uploadBits[T backend.Float](s *suite[T]) {
	host := []T{T(math.Copysign(0, -1)), T(math.NaN()), T(math.Inf(1)), T(math.Inf(-1)), 0x1p-126 / 1024, 0}
	v, w := s.newVec(1, 2, 3), s.newVec(1, 2, 3)
	s.Upload(v, host)
	s.equalBits("Upload", s.download(v), host, "was uploaded")
	s.Copy(w, v)
	s.equalBits("Copy", s.download(w), host, "was uploaded")
	s.Zero(w)
	s.equalBits("Zero", s.download(w), make([]T, 6), "is zero")
}

func blockNested[T backend.Float](s *suite[T]) {
	v := s.newVec(3, 5, 2)
	b := v.Block(2).Block(0)
	if blocks, rows, cols := b.Shape(); blocks != 1 || rows != 5 || cols != 2 {
		s.Errorf("Block(2).Block(0): shape %d×%d×%d, want 1×5×2", blocks, rows, cols)
	}
	host := s.random(10)
	s.Upload(b, host)
	s.equalBits("Block(2).Block(0)", s.download(v)[20:], host, "was uploaded to it")
}

// memoryCounts checks that what is allocated counts and what is released does not.
func memoryCounts[T backend.Float](s *suite[T]) {
	used := s.MemoryUsed()
	grows := func(what string, atLeast int64) {
		s.Helper()
		if now := s.MemoryUsed(); now < used+atLeast {
			s.Errorf("MemoryUsed: %d bytes before and %d after %s; want %d more", used, now, what, atLeast)
		}
		used = s.MemoryUsed()
	}
	start := used
	var x T
	size := int64(unsafe.Sizeof(x))
	s.newVec(2, 3, 5)
	grows("NewVec", 30*size)
	tm := s.fresh(7)
	grows("NewClock", 7*16)
	f := s.bind(s.model(mlp.Dense(mlp.Tanh, 2, 3, 2)))
	grows("Bind", 17*size)
	tape := s.newTape(7, 7, 100, 1)
	y := s.newVec(1, 7, 100)
	used = s.MemoryUsed()
	tm.attempt(stock, each(0.5))
	for range 50 { // more than any backend sets aside
		s.Push(tm.clk, tape, []backend.Vec[T]{y})
	}
	tm.verify("Push")
	grows("Push", 50*7*100*size)
	f.Close()
	f.Close()
	tape.Close()
	tape.Close()
	tm.clk.Close()
	tm.clk.Close()
	s.Free(nil)
	s.release()
	if now := s.MemoryUsed(); now != start {
		s.Errorf("MemoryUsed: %d bytes before and %d after everything was freed", start, now)
	}
}

// another opens a backend beside the one under test.
func (s *suite[T]) another() *suite[T] {
	s.Helper()
	return &suite[T]{reporter: s.reporter, arith: s.arith, Backend: s.open(), open: s.open, rng: s.rng}
}

// closed calls everything after Close.
func closed[T backend.Float](s *suite[T]) {
	o := s.another()
	if used := o.MemoryUsed(); used != 0 {
		o.Errorf("MemoryUsed of a new backend: %d bytes", used)
	}
	v, table, theta, at1 := o.newVec(1, 2, 3), o.newVec(4, 2, 3), o.newVec(1, 1, 27), o.newVec(1, 2, 1)
	tm := o.fresh(2)
	tape := o.newTape(2, 2, 3, 1)
	f := o.bind(o.model(mlp.Dense(mlp.Tanh, 3, 4, 3)))
	tm.attempt(stock, each(0.5))
	vs := []backend.Vec[T]{v}
	o.Push(tm.clk, tape, vs)
	o.noError("Sync", o.Sync())
	for range 2 {
		o.noError("Close", o.Close())
	}

	at := tm.at(0, backend.Running)
	host := make([]T, 6)
	o.Upload(v, host)
	o.Copy(v, v)
	o.Zero(v)
	o.Start(tm.clk, tm.ref.spans...)
	o.Start(tm.clk, tm.ref.spans[0], tm.ref.spans[0])
	o.ProposeStep(tm.clk, v, v, v, 3, errorTol)
	o.Combine(v, v, at, []float64{1}, vs)
	o.ErrorRatio(tm.clk, errorTol, []float64{1}, nil, []backend.Part[T]{{Y0: v, Y1: v, K: vs}})
	o.Advance(tm.clk, stock)
	o.Save(tm.clk, [][]float64{{1}}, v, v, vs, table)
	o.Commit(tm.clk, backend.Accepted, []backend.Move[T]{{Dst: v, Src: v}})
	o.AtStop(tm.clk, backend.Add, v, table)
	o.Push(tm.clk, tape, vs)
	rev, reverses := o.Backend.(backend.Reverser[T])
	if reverses {
		rev.Sum(v, v, at, []float64{1}, vs)
		rev.Rewind(tm.clk, tape, 1, nil)
		rev.Back(tm.clk, tape, vs)
		rev.SaveVJP(tm.clk, [][]float64{{1}}, table, v, v, vs)
		rev.Interpolate(v, at, tape, nil)
		rev.CopyClock(tm.clk, tm.clk)
		rev.Reset(tape)
	}
	f.Eval(v, at, v)
	f.VJP(at, backend.VJP[T]{Z: v, A: v, DZ: v, AZ: v, AT: at1, G: theta})
	f.JVP(at, backend.JVP[T]{Z: v, V: v, JV: v})

	want := func(verb string, err error) {
		o.Helper()
		if !errors.Is(err, backend.ErrClosed) {
			o.Errorf("%s after Close: %v, want ErrClosed", verb, err)
		}
	}
	for range 2 { // every time, not the first alone
		_, err := o.NewVec(1, 1, 1)
		want("NewVec", err)
		_, err = o.NewClock(1)
		want("NewClock", err)
		_, err = o.NewTape(1, 1, 1, 1)
		want("NewTape", err)
		_, err = o.Bind(o.model(mlp.Dense(mlp.Tanh, 3, 4, 3)))
		want("Bind", err)
		_, err = o.Poll(tm.clk)
		want("Poll", err)
		want("Lanes", o.Lanes(tm.clk, make([]backend.Lane, 2)))
		_, _, err = o.ReadTape(tape, 0, 0, make([]T, 3))
		want("ReadTape", err)
		if reverses {
			want("Reserve", rev.Reserve(tape, 1))
		}
		want("Download", o.Download(host, v))
		want("Sync", o.Sync())
	}
	f.Close()
	tape.Close()
	tm.clk.Close()
	o.Free(v)
	if used := o.MemoryUsed(); used != 0 {
		o.Errorf("MemoryUsed after Close: %d bytes", used)
	}
	if o.Name() == "" || tm.clk.Lanes() < 0 {
		o.Errorf("Name after Close is empty")
	}
	o.noError("Close, a third time", o.Close())
}

// closeInUse closes with work under way, which another backend does not notice.
func closeInUse[T backend.Float](s *suite[T]) {
	mine := s.bench(thoroughNet)
	o := s.another()
	b := o.bench(thoroughNet)
	tm := o.fresh(b.rows)
	dz := o.newVec(1, b.rows, b.d)
	for range 10 {
		b.f.Eval(dz, tm.at(0, backend.Running), b.z.v)
	}
	o.noError("Close", o.Close())
	checkEval(s, mine, s.fresh(mine.rows), backend.Running)
}
