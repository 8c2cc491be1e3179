package backendtest

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// misuseCases check that shapes that do not fit and values of another backend panic,
// and leave the backend usable.
func misuseCases[T backend.Float]() []testCase[T] {
	return []testCase[T]{
		{"panics/shapes", misuseShapes[T]},
		{"panics/another backend's", misuseForeign[T]},
		{"panics/spans", misuseSpans[T]},
		{"panics/freed", misuseFreed[T]},
	}
}

// panics checks that do panics.
func (s *suite[T]) panics(what string, do func()) {
	s.Helper()
	defer func() {
		s.Helper()
		if recover() == nil {
			s.Errorf("%s does not panic", what)
		}
	}()
	do()
}

func misuseShapes[T backend.Float](s *suite[T]) {
	v23, v32, v24, two := s.newVec(1, 2, 3), s.newVec(1, 3, 2), s.newVec(1, 2, 4), s.newVec(2, 2, 3)
	table, out := s.newVec(3, 2, 4), s.newVec(1, 2, 3)
	vecs := func(v ...backend.Vec[T]) []backend.Vec[T] { return v }
	one, three := s.fresh(1), s.fresh(3)
	at := one.at(0, backend.Running)
	f := s.bind(s.model(mlp.Dense(mlp.Tanh, 3, 4, 3)))
	s.panics("NewVec of a negative shape", func() { s.NewVec(1, -1, 2) })
	s.panics("NewClock(0)", func() { s.NewClock(0) })
	s.panics("NewTape of 2 lanes for 3 rows", func() { s.NewTape(2, 3, 1, 1) })
	s.panics("Block(-1)", func() { two.Block(-1) })
	s.panics("Block(2) of 2", func() { two.Block(2) })
	s.panics("Upload of a slice too short", func() { s.Upload(v23, make([]T, 5)) })
	s.panics("Upload of a slice too long", func() { s.Upload(v23, make([]T, 7)) })
	s.panics("Download to a slice too short", func() { _ = s.Download(make([]T, 5), v23) })
	s.panics("Download to a slice too long", func() { _ = s.Download(make([]T, 7), v23) })
	s.panics("Copy of another shape", func() { s.Copy(v23, v32) })
	s.panics("Copy of other blocks", func() { s.Copy(v23, two) })
	s.panics("Combine of another y", func() { s.Combine(v23, v24, at, nil, nil) })
	s.panics("Combine of another k", func() { s.Combine(v23, out, at, []float64{1}, vecs(v24)) })
	s.panics("Combine without a k", func() { s.Combine(v23, out, at, []float64{1}, nil) })
	s.panics("Combine of 2 rows with 3 lanes", func() { s.Combine(v23, out, three.at(0, backend.Running), nil, nil) })
	s.panics("ErrorRatio of another y1", func() {
		s.ErrorRatio(one.clk, errorTol, nil, nil, []backend.Part[T]{{Y0: v23, Y1: v24}})
	})
	s.panics("ErrorRatio of another k", func() {
		s.ErrorRatio(one.clk, errorTol, []float64{1}, nil, []backend.Part[T]{{Y0: v23, Y1: out, K: vecs(v24)}})
	})
	s.panics("ProposeStep of another f0", func() { s.ProposeStep(one.clk, v23, v24, nil, 1, errorTol) })
	s.panics("ProposeStep of another f1", func() { s.ProposeStep(one.clk, v23, out, v24, 1, errorTol) })
	s.panics("Save of two blocks", func() { s.Save(one.clk, nil, two, two, nil, s.newVec(1, 2, 3)) })
	s.panics("Save to another table", func() { s.Save(one.clk, nil, v23, out, nil, table) })
	s.panics("Save with more weights than k", func() { s.Save(one.clk, [][]float64{{1}}, v23, out, nil, two) })
	s.panics("Commit of another shape", func() { s.Commit(one.clk, backend.Running, []backend.Move[T]{{Dst: v23, Src: v24}}) })
	s.panics("AtStop of two blocks", func() { s.AtStop(one.clk, backend.Store, two, two) })
	s.panics("AtStop with another table", func() { s.AtStop(one.clk, backend.Store, v23, table) })
	s.panics("Lanes of another length", func() { _ = s.Lanes(three.clk, make([]backend.Lane, 2)) })
	tape := s.newTape(1, 2, 3, 1)
	s.panics("Push of two, where the tape keeps one", func() { s.Push(one.clk, tape, vecs(v23, v23)) })
	s.panics("Push of another shape", func() { s.Push(one.clk, tape, vecs(v24)) })
	s.panics("Push with other lanes", func() { s.Push(three.clk, tape, vecs(v23)) })
	s.panics("ReadTape of a step that was not taken", func() { _, _, _ = s.ReadTape(tape, 0, 0, make([]T, 6)) })
	s.panics("Eval of another z", func() { f.Eval(out, at, v24) })
	s.panics("Eval to another dz", func() { f.Eval(v24, at, v23) })
	s.panics("Eval of 2 rows with 3 lanes", func() { f.Eval(out, three.at(0, backend.Running), v23) })
	s.panics("VJP to another AT", func() { f.VJP(at, backend.VJP[T]{Z: v23, A: v23, AT: out}) })
	s.panics("VJP to another G", func() { f.VJP(at, backend.VJP[T]{Z: v23, A: v23, G: out}) })
	s.panics("JVP with another W", func() { f.JVP(at, backend.JVP[T]{Z: v23, V: v23, W: v24, JV: out}) })
	transfer(s, 3, 2)
}

func misuseForeign[T backend.Float](s *suite[T]) {
	o := s.another()
	defer o.Close()
	mine, theirs := s.newVec(1, 2, 3), o.newVec(1, 2, 3)
	one, other := s.fresh(1), o.fresh(1)
	tape := o.newTape(1, 2, 3, 1)
	s.panics("Upload to another backend's Vec", func() { s.Upload(theirs, make([]T, 6)) })
	s.panics("Download of another backend's Vec", func() { _ = s.Download(make([]T, 6), theirs) })
	s.panics("Copy from another backend's Vec", func() { s.Copy(mine, theirs) })
	s.panics("Free of another backend's Vec", func() { s.Free(theirs) })
	s.panics("Combine with another backend's Clock", func() { s.Combine(mine, mine, other.at(0, backend.Running), nil, nil) })
	s.panics("Combine of another backend's Vec", func() { s.Combine(mine, theirs, one.at(0, backend.Running), nil, nil) })
	s.panics("Advance of another backend's Clock", func() { s.Advance(other.clk, stock) })
	s.panics("Push to another backend's Tape", func() { s.Push(one.clk, tape, []backend.Vec[T]{mine}) })
	transfer(s, 3, 2)
}

func misuseSpans[T backend.Float](s *suite[T]) {
	clk := s.newClock(1)
	nan, inf := math.NaN(), math.Inf(1)
	for what, span := range map[string]backend.Span{
		"no stop":                 {},
		"stops out of order":      {Stops: []float64{2, 1}},
		"a stop twice":            {Stops: []float64{1, 1}},
		"a stop at T0":            {Stops: []float64{0, 1}},
		"a stop behind T0":        {Stops: []float64{-1, 1}},
		"a stop not finite":       {Stops: []float64{inf}},
		"T0 not finite":           {T0: nan, Stops: []float64{1}},
		"saves out of order":      {Saves: []float64{2, 1}, Stops: []float64{3}},
		"a save at T0":            {Saves: []float64{0, 1}, Stops: []float64{3}},
		"a save beyond the end":   {Saves: []float64{1, 4}, Stops: []float64{3}},
		"a save not finite":       {Saves: []float64{nan}, Stops: []float64{3}},
		"saves without length":    {Saves: []float64{0}, Stops: []float64{0}},
		"more blocks than stops":  {Stops: []float64{1}, Blocks: []int{0, 1}},
		"fewer blocks than stops": {Stops: []float64{1, 2}, Blocks: []int{0}},
		"H0 not finite":           {Stops: []float64{1}, H0: nan},
		"a negative MaxStep":      {Stops: []float64{1}, MaxStep: -1},
	} {
		s.panics("Start with "+what, func() { s.Start(clk, span) })
		if span.Valid() {
			s.Errorf("Span.Valid is true with %s", what)
		}
	}
}

func misuseFreed[T backend.Float](s *suite[T]) {
	v, err := s.NewVec(2, 2, 3)
	s.noError("NewVec", err)
	block := v.Block(0)
	s.panics("Free of a block", func() { s.Free(block) })
	s.Free(v)
	s.panics("Upload to a Vec after Free", func() { s.Upload(v, make([]T, 12)) })
	s.panics("Upload to its block", func() { s.Upload(block, make([]T, 6)) })
	s.panics("Free twice", func() { s.Free(v) })
}
