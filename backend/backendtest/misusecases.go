package backendtest

import (
	"fmt"
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
		{"panics/spans of lanes", misuseLanes[T]},
		{"panics/reverser", misuseReverser[T]},
		{"panics/cutter", misuseCutter[T]},
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
		"MaxStep not finite":      {Stops: []float64{1}, MaxStep: inf},
		"a negative Row":          {Stops: []float64{1}, Row: -1},
		"a negative Tol.Rel":      {Stops: []float64{1}, Tol: backend.Tolerance{Rel: -1, Abs: 1}},
		"a negative Tol.Abs":      {Stops: []float64{1}, Tol: backend.Tolerance{Rel: 1, Abs: -1}},
		"Tol.Rel not finite":      {Stops: []float64{1}, Tol: backend.Tolerance{Rel: inf}},
		"Tol.Abs not finite":      {Stops: []float64{1}, Tol: backend.Tolerance{Abs: nan}},
	} {
		s.panics("Start with "+what, func() { s.Start(clk, span) })
		if span.Valid() {
			s.Errorf("Span.Valid is true with %s", what)
		}
	}
}

// misuseLanes gives clocks spans, and the verbs tables, that do not fit their lanes.
func misuseLanes[T backend.Float](s *suite[T]) {
	good, bad := backend.Span{H0: 1, Saves: []float64{1}, Stops: []float64{2}}, backend.Span{}
	one, three := s.newClock(1), s.newClock(3)
	spans := func(n int) (all []backend.Span) {
		for range n {
			all = append(all, good)
		}
		return all
	}
	s.panics("Start without a span", func() { s.Start(one) })
	s.panics("Start of 3 lanes without a span", func() { s.Start(three) })
	s.panics("Start of 3 lanes with 2 spans", func() { s.Start(three, spans(2)...) })
	s.panics("Start of 3 lanes with 4 spans", func() { s.Start(three, spans(4)...) })
	s.panics("Start of 1 lane with 3 spans", func() { s.Start(one, spans(3)...) })
	for i := range 3 {
		all := spans(3)
		all[i] = bad
		s.panics(fmt.Sprintf("Start with a span that is not valid for lane %d", i), func() { s.Start(three, all...) })
	}
	s.Start(three, spans(3)...)
	v, w, narrow := s.newVec(1, 3, 2), s.newVec(1, 3, 2), s.newVec(1, 3, 1)
	s.panics("Save to a table of blocks, with own spans", func() { s.Save(three, nil, v, w, nil, s.newVec(2, 3, 2)) })
	s.panics("Save to a table without blocks, with own spans", func() { s.Save(three, nil, v, w, nil, s.newVec(0, 3, 2)) })
	s.panics("Save to a table of other columns, with own spans", func() { s.Save(three, nil, v, w, nil, narrow) })
	s.panics("AtStop with a table of blocks, with own spans", func() { s.AtStop(three, backend.Store, v, s.newVec(2, 3, 2)) })
	s.panics("AtStop with a table of other columns, with own spans", func() { s.AtStop(three, backend.Load, v, narrow) })
	s.panics("Save of 2 rows with 3 spans", func() { s.Save(three, nil, s.newVec(1, 2, 2), s.newVec(1, 2, 2), nil, v) })
	s.Start(three, good)
	s.panics("Save to a table of rows, with one span", func() { s.Save(three, nil, v, w, nil, s.newVec(1, 7, 2)) })
	tm := s.timer(3, spans(3)...) // still usable
	tm.attempt(stock, each(0.5))
	tm.verify("Advance")
}

// misuseReverser is misuseShapes and misuseForeign for the verbs of a Reverser.
func misuseReverser[T backend.Float](s *suite[T]) {
	rev := s.reverser()
	v23, v32, v24, two, table := s.newVec(1, 2, 3), s.newVec(1, 3, 2), s.newVec(1, 2, 4), s.newVec(2, 2, 3), s.newVec(3, 2, 4)
	out := s.newVec(1, 2, 3)
	vecs := func(v ...backend.Vec[T]) []backend.Vec[T] { return v }
	weights := [][]float64{{1}}
	one, three := s.fresh(1), s.fresh(3)
	at := one.at(0, backend.Running)
	tape, wide := s.newTape(1, 2, 3, 1), s.newTape(1, 2, 3, 3)
	s.panics("Sum of another y", func() { rev.Sum(v23, v24, at, nil, nil) })
	s.panics("Sum of another k", func() { rev.Sum(v23, out, at, []float64{1}, vecs(v24)) })
	s.panics("Sum without a k", func() { rev.Sum(v23, out, at, []float64{1}, nil) })
	s.panics("Sum of 2 rows with 3 lanes", func() { rev.Sum(v23, out, three.at(0, backend.Running), nil, nil) })
	s.panics("Rewind with other lanes", func() { rev.Rewind(three.clk, tape, 1, nil) })
	s.panics("Rewind with skip of another length", func() { rev.Rewind(one.clk, tape, 1, make([]bool, 2)) })
	rev.Rewind(one.clk, tape, 1, nil)
	s.panics("Back to two, where the tape keeps one", func() { rev.Back(one.clk, tape, vecs(v23, v23)) })
	s.panics("Back to another shape", func() { rev.Back(one.clk, tape, vecs(v24)) })
	s.panics("Back with other lanes", func() { rev.Back(three.clk, tape, vecs(v32)) })
	s.panics("SaveVJP of another y1", func() { rev.SaveVJP(one.clk, nil, two, v23, v24, nil) })
	s.panics("SaveVJP of two blocks", func() { rev.SaveVJP(one.clk, nil, two, two, two, nil) })
	s.panics("SaveVJP of other cotangents", func() { rev.SaveVJP(one.clk, nil, table, v23, out, nil) })
	s.panics("SaveVJP with more weights than k", func() { rev.SaveVJP(one.clk, weights, two, v23, out, nil) })
	s.panics("Interpolate to another shape", func() { rev.Interpolate(v24, at, wide, weights) })
	s.panics("Interpolate to two blocks", func() { rev.Interpolate(two, at, wide, weights) })
	s.panics("Interpolate with other lanes", func() { rev.Interpolate(v32, three.at(0, backend.Running), wide, weights) })
	s.panics("Interpolate with more weights than the tape keeps", func() { rev.Interpolate(v23, at, wide, [][]float64{{1}, {1}}) })
	s.panics("Interpolate of a tape that does not keep y1", func() { rev.Interpolate(v23, at, tape, nil) })
	s.panics("Reserve of a negative number of steps", func() { _ = rev.Reserve(tape, -1) })
	s.panics("CopyClock of another number of lanes", func() { rev.CopyClock(one.clk, three.clk) })

	o := s.another()
	defer o.Close()
	other, theirs := o.fresh(1), o.newTape(1, 2, 3, 1)
	s.panics("Sum with another backend's Clock", func() { rev.Sum(v23, out, other.at(0, backend.Running), nil, nil) })
	s.panics("Reset of another backend's Tape", func() { rev.Reset(theirs) })
	s.panics("Reserve of another backend's Tape", func() { _ = rev.Reserve(theirs, 1) })
	s.panics("Rewind of another backend's Clock", func() { rev.Rewind(other.clk, tape, 1, nil) })
	s.panics("Rewind of another backend's Tape", func() { rev.Rewind(one.clk, theirs, 1, nil) })
	s.panics("Back to another backend's Vec", func() { rev.Back(one.clk, tape, vecs(o.newVec(1, 2, 3))) })
	s.panics("SaveVJP of another backend's cotangents", func() { rev.SaveVJP(one.clk, nil, o.newVec(1, 2, 3), v23, out, nil) })
	s.panics("Interpolate of another backend's Tape", func() { rev.Interpolate(v23, at, theirs, nil) })
	s.panics("CopyClock from another backend's", func() { rev.CopyClock(one.clk, other.clk) })
	s.panics("CopyClock to another backend's", func() { rev.CopyClock(other.clk, one.clk) })
	transfer(s, 3, 2)
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
