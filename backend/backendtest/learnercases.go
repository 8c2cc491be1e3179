package backendtest

import (
	"fmt"
	"math"

	"github.com/seed-5f5774c8/neuralode/backend"
)

// learnerCases are those of a [backend.Trainer].
func learnerCases[T backend.Float]() []testCase[T] {
	all := []testCase[T]{
		{"Gather/rows", gatherRows[T]},
		{"Loss/labels", lossOfLabels[T]},
		{"Loss/lanes", lossOfLanes[T]},
		{"Update/what is not finite", updateNonFinite[T]},
		{"Update/norm", updateNorm[T]},
		{"panics/learner", misuseLearner[T]},
	}
	for kind, name := range []string{"squares", "sizes", "Huber"} {
		all = append(all, testCase[T]{"Loss/" + name, func(s *suite[T]) { lossOfElements(s, backend.LossKind(kind)) }})
	}
	for _, c := range []struct {
		name string
		o    backend.Optimizer
	}{
		{"Adam", backend.Optimizer{Kind: backend.Adam, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1}},
		{"AdamW", backend.Optimizer{Kind: backend.AdamW, Beta1: 0.8, Beta2: 0.9, Eps: 1e-3, WeightDecay: 0.1}},
		{"RMSprop", backend.Optimizer{Kind: backend.RMSprop, Alpha: 0.9, Eps: 1e-8}},
		{"RMSprop, centred", backend.Optimizer{Kind: backend.RMSprop, Alpha: 0.9, Eps: 0.1, Momentum: 0.5, WeightDecay: 0.1}},
		{"SGD", backend.Optimizer{Kind: backend.SGD, WeightDecay: 0.1}},
		{"SGD, momentum", backend.Optimizer{Kind: backend.SGD, Momentum: 0.9, Dampening: 0.5}},
		{"SGD, Nesterov", backend.Optimizer{Kind: backend.SGD, Momentum: 0.9, Nesterov: true}},
	} {
		all = append(all, testCase[T]{"Update/" + c.name, func(s *suite[T]) { updates(s, c.o, c.name == "RMSprop, centred") }})
	}
	return all
}

// learner makes one, and ends a case that has no use for a backend that makes none. Call
// it first.
func (s *suite[T]) learner() backend.Learner[T] {
	s.Helper()
	trainer, ok := s.Backend.(backend.Trainer[T])
	if !ok {
		s.Skipf("%s is not a backend.Trainer", s.Name())
	}
	l, err := trainer.NewLearner()
	s.noError("NewLearner", err)
	s.owned = append(s.owned, l.Close)
	return l
}

func (s *suite[T]) outcome(l backend.Learner[T]) backend.Outcome {
	s.Helper()
	o, err := l.Outcome()
	s.noError("Outcome", err)
	return o
}

func gatherRows[T backend.Float](s *suite[T]) {
	l := s.learner()
	for _, rows := range [][]int{{6, 0, 3, 3}, {2}, {}} {
		n := len(rows)
		l.Prepare(rows, backend.Optimizer{})
		src, one := s.operand("src", 3, 7, 5), s.operand("one", 1, 7, 1)
		dst, other := s.output("dst", 3, n, 5, allRows), s.output("other", 1, n, 1, allRows)
		taken := append([]int(nil), rows...)
		for i := range rows {
			rows[i] = 5 // which may be done after Prepare
		}
		l.Gather([]backend.Move[T]{{Dst: dst.v, Src: src.v}, {Dst: other.v, Src: one.v}})
		dst.expect("Gather", allRows, func(i int) num {
			return exact(src.host[(i/(n*5)*7+taken[dst.row(i)])*5+i%5])
		})
		other.expect("Gather", allRows, func(i int) num { return exact(one.host[taken[i]]) })
		unchanged("Gather", src, one)
	}
}

// checkLoss compares a loss, its weight and its derivative with those of elements.
func checkLoss[T backend.Float](s *suite[T], l backend.Learner[T], verb string, loss backend.Loss, pred, y, w *operand[T], element func(i int) (weight, loss float64), slope func(i int) num) {
	grad := s.output("grad", pred.blocks, pred.rows, pred.cols, allRows)
	var weights backend.Vec[T]
	if w != nil {
		weights = w.v
	}
	l.Loss(loss, nil, pred.v, y.v, weights, grad.v)
	sum, total := 0.0, 0.0
	for i := range y.host {
		if n, x := element(i); n != 0 {
			sum, total = sum+n*x, total+n
		}
	}
	scale := 1.0
	if loss.Mean {
		scale = 1 / total
	}
	got := s.outcome(l)
	if !closeTo(got.Loss, sum*scale, 1e-12) || got.Weight != total {
		s.Errorf("%s: the loss is %.17g of weight %g, want %.17g of %g", verb, got.Loss, got.Weight, sum*scale, total)
	}
	grad.expect(verb, allRows, func(i int) num {
		d := slope(i)
		return num{scale * d.v, scale*d.e + 2*s.u*math.Abs(scale*d.v)}
	})
	unchanged(verb, pred, y)
}

// eachLoss calls do for means and sums, with weights, some of them 0, and without.
func eachLoss[T backend.Float](s *suite[T], blocks, rows, cols int, do func(mean bool, verb string, w *operand[T], weight func(i int) float64)) {
	for _, mean := range []bool{false, true} {
		do(mean, fmt.Sprintf("Loss of %d×%d×%d, mean %v", blocks, rows, cols, mean), nil, func(int) float64 { return 1 })
		w := s.operand("w", blocks, rows, cols)
		for i := range w.host {
			w.host[i] = T(i%3) / 2
		}
		w.host[len(w.host)-1] = 1 // not all are 0
		w.set(w.host)
		do(mean, fmt.Sprintf("weighted Loss of %d×%d×%d, mean %v", blocks, rows, cols, mean), w, func(i int) float64 { return float64(w.host[i]) })
		w.unchanged("Loss")
	}
}

func lossOfElements[T backend.Float](s *suite[T], kind backend.LossKind) {
	l := s.learner()
	for _, shape := range [][3]int{{1, 1, 1}, {3, 70, 5}, {2, 1, 2500}} {
		eachLoss(s, shape[0], shape[1], shape[2], func(mean bool, verb string, w *operand[T], weight func(int) float64) {
			pred, y := s.operand("pred", shape[0], shape[1], shape[2]), s.operand("y", shape[0], shape[1], shape[2])
			y.host[len(y.host)/2] = pred.host[len(y.host)/2] // where sizes have no derivative
			if w != nil && len(y.host) > 3 {
				y.host[3], pred.host[3] = T(math.NaN()), T(math.Inf(1)) // weight 0
			}
			y.set(y.host)
			pred.set(pred.host)
			of := func(i int) (loss, slope float64) {
				r := float64(pred.host[i]) - float64(y.host[i])
				switch kind {
				case backend.MSE:
					return r * r, 2 * r
				case backend.MAE:
					if r == 0 {
						return 0, 0
					}
					return math.Abs(r), math.Copysign(1, r)
				}
				if d := 0.7; math.Abs(r) > d {
					return d*math.Abs(r) - d*d/2, math.Copysign(d, r)
				}
				return r * r / 2, r
			}
			checkLoss(s, l, verb, backend.Loss{Kind: kind, Mean: mean, Delta: 0.7}, pred, y, w,
				func(i int) (float64, float64) { x, _ := of(i); return weight(i), x },
				func(i int) num {
					if weight(i) == 0 {
						return num{}
					}
					_, d := of(i)
					return num{v: weight(i) * d}
				})
		})
	}
}

func lossOfLabels[T backend.Float](s *suite[T]) {
	l := s.learner()
	for _, shape := range [][3]int{{1, 1, 2}, {3, 70, 5}, {2, 3, 300}} {
		cols := shape[2]
		eachLoss(s, shape[0], shape[1], 1, func(mean bool, verb string, w *operand[T], weight func(int) float64) {
			pred, y := s.operand("pred", shape[0], shape[1], cols), s.operand("y", shape[0], shape[1], 1)
			for i := range y.host {
				y.host[i] = T(i%(cols+1) - 1)
			}
			y.host[len(y.host)-1] = T(cols - 1)
			y.set(y.host)
			for i := range pred.host {
				pred.host[i] *= 200 // whose exponential is too large for a float32
			}
			pred.set(pred.host)
			counts := func(i int) float64 {
				if y.host[i] < 0 {
					return 0
				}
				return weight(i)
			}
			// The largest logit of a row, and Σ exp(x_j - largest) over the others.
			row := func(i int) (x []T, top, rest float64) {
				x = pred.host[i*cols : (i+1)*cols]
				at := 0
				for j, v := range x {
					if v > x[at] {
						at = j
					}
				}
				top = float64(x[at])
				for j, v := range x {
					if j != at {
						rest += math.Exp(float64(v) - top)
					}
				}
				return x, top, rest
			}
			checkLoss(s, l, verb, backend.Loss{Kind: backend.CrossEntropy, Mean: mean}, pred, y, w,
				func(i int) (float64, float64) {
					if counts(i) == 0 {
						return 0, 0
					}
					x, top, rest := row(i)
					return counts(i), top - float64(x[int(y.host[i])]) + math.Log1p(rest)
				},
				func(i int) num {
					n := counts(i / cols)
					if n == 0 {
						return num{}
					}
					x, top, rest := row(i / cols)
					p := math.Exp(float64(x[i%cols])-top) / (1 + rest)
					if i%cols == int(y.host[i/cols]) {
						p--
					}
					return num{v: n * p, e: n * 1e-15 * float64(cols)}
				})
		})
	}
}

// lossOfLanes checks that a loss counts for nothing until all lanes are done.
func lossOfLanes[T backend.Float](s *suite[T]) {
	l := s.learner()
	tm := s.timer(2, backend.Span{H0: 1, Stops: []float64{1}})
	x, grad := s.operand("x", 1, 2, 3), s.operand("grad", 1, 2, 3)
	for i, ratios := range [][]float64{{9, 9}, {0.5, 9}, {0.5, 0.5}} {
		l.Loss(backend.Loss{}, tm.clk, x.v, x.v, nil, grad.v)
		if got := s.outcome(l).Loss; !math.IsNaN(got) {
			s.Errorf("Loss with lanes under way is %g, want NaN", got)
		}
		for range []int{1, 1, 9}[i] {
			tm.attempt(stock, func(lane int) float64 { return ratios[lane] })
		}
	}
	l.Loss(backend.Loss{}, tm.clk, x.v, x.v, nil, grad.v)
	if got := s.outcome(l).Loss; got != 0 {
		s.Errorf("Loss of predictions on target, with all lanes done, is %g", got)
	}
}

// sound makes the outcome that of a finite loss.
func (s *suite[T]) sound(l backend.Learner[T]) {
	x, grad := s.operand("x", 1, 1, 1), s.operand("grad", 1, 1, 1)
	l.Loss(backend.Loss{}, nil, x.v, x.v, nil, grad.v)
}

// updates makes updates with and without clipping, in float64 beside.
func updates[T backend.Float](s *suite[T], o backend.Optimizer, centred bool) {
	l := s.learner()
	for _, clip := range []float64{0, 0.5} {
		const p = 2100
		o.Clip, o.Step = clip, 0
		theta := s.operand("theta", 1, 1, p)
		ref := toFloat64(theta.host)
		names, mem, memory := []string{"m", "v", "a"}, [3]*operand[T]{}, [3][]float64{}
		vecs := [3]backend.Vec[T]{}
		adam := o.Kind == backend.Adam || o.Kind == backend.AdamW
		for i, used := range []bool{adam || o.Momentum != 0, adam || o.Kind == backend.RMSprop, centred} {
			if used {
				mem[i], memory[i] = s.input(names[i], 1, 1, p, make([]T, p)), make([]float64, p)
				vecs[i] = mem[i].v
			}
		}
		s.sound(l)
		for range 4 {
			grad := s.operand("grad", 1, 1, p)
			g := toFloat64(grad.host)
			norm := 0.0
			for _, v := range g {
				norm += v * v
			}
			norm = math.Sqrt(norm)
			if c := clip / (norm + 1e-6); clip != 0 && c < 1 {
				for i := range g {
					g[i] *= c
				}
			}
			o.Step++
			o.LR = 0.1 / float64(o.Step)
			updateReference(&o, ref, g, memory[0], memory[1], memory[2])
			l.Prepare(nil, o)
			l.Update(theta.v, grad.v, vecs[0], vecs[1], vecs[2])
			grad.unchanged("Update")
			got := s.outcome(l)
			if !closeTo(got.Norm, norm, 1e-12) || got.BadParam != -1 || got.Loss != 0 {
				s.Errorf("Update: %+v, want the norm %g", got, norm)
			}
		}
		// Some roundings of every update, of numbers about 1.
		near := func(x float64) num { return num{x, 50 * s.u * (1 + math.Abs(x))} }
		theta.expect("Update", allRows, func(i int) num { return near(ref[i]) })
		for k, m := range mem {
			if m != nil {
				m.expect("Update", allRows, func(i int) num { return near(memory[k][i]) })
			}
		}
	}
}

func toFloat64[T backend.Float](x []T) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// updateReference is an update by the formulas of torch.optim.
func updateReference(o *backend.Optimizer, theta, grad, m, v, a []float64) {
	t := float64(o.Step)
	for i, g := range grad {
		x := theta[i]
		if o.Kind == backend.AdamW {
			x -= o.LR * o.WeightDecay * x
		} else {
			g += o.WeightDecay * x
		}
		switch o.Kind {
		case backend.Adam, backend.AdamW:
			m[i] = o.Beta1*m[i] + (1-o.Beta1)*g
			v[i] = o.Beta2*v[i] + (1-o.Beta2)*g*g
			g = m[i] / (1 - math.Pow(o.Beta1, t)) / (math.Sqrt(v[i]/(1-math.Pow(o.Beta2, t))) + o.Eps)
		case backend.RMSprop:
			v[i] = o.Alpha*v[i] + (1-o.Alpha)*g*g
			spread := v[i]
			if a != nil {
				a[i] = o.Alpha*a[i] + (1-o.Alpha)*g
				spread -= a[i] * a[i]
			}
			g /= math.Sqrt(max(spread, 0)) + o.Eps
			if m != nil {
				m[i] = o.Momentum*m[i] + g
				g = m[i]
			}
		case backend.SGD:
			if m == nil {
				break
			}
			if o.Step == 1 {
				m[i] = g
			} else {
				m[i] = o.Momentum*m[i] + (1-o.Dampening)*g
			}
			if o.Nesterov {
				g += o.Momentum * m[i]
			} else {
				g = m[i]
			}
		}
		theta[i] = x - o.LR*g
	}
}

// updateNonFinite checks that a loss or a gradient that is not finite updates nothing,
// and that a parameter which becomes so is named.
func updateNonFinite[T backend.Float](s *suite[T]) {
	l := s.learner()
	theta := s.operand("theta", 1, 1, 3)
	o := backend.Optimizer{Kind: backend.SGD, LR: 1, Step: 1}
	update := func(grad ...T) backend.Outcome {
		l.Prepare(nil, o)
		l.Update(theta.v, s.input("grad", 1, 1, 3, grad).v, nil, nil, nil)
		return s.outcome(l)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		s.sound(l)
		if got := update(0, T(bad), 1); finite(got.Norm) || got.BadParam != -1 {
			s.Errorf("Update with a gradient of %g: %+v", bad, got)
		}
		theta.unchanged("Update with a gradient that is not finite")
		x, y := s.input("pred", 1, 1, 1, []T{T(bad)}), s.operand("y", 1, 1, 1)
		l.Loss(backend.Loss{}, nil, x.v, y.v, nil, s.newVec(1, 1, 1))
		if got := update(1, 1, 1); finite(got.Loss) || got.BadParam != -1 {
			s.Errorf("Update with a loss of %g: %+v", bad, got)
		}
		theta.unchanged("Update with a loss that is not finite")
	}
	s.sound(l)
	big := math.MaxFloat64
	if isSingle[T]() {
		big = math.MaxFloat32
	}
	o.LR = 1e10
	if got := update(0, T(big/2), T(big/2)); got.BadParam != 1 {
		s.Errorf("Update that makes parameters 1 and 2 infinite: %+v", got)
	}
}

// updateNorm checks that the norm overflows and vanishes only if it does itself.
func updateNorm[T backend.Float](s *suite[T]) {
	l := s.learner()
	l.Prepare(nil, backend.Optimizer{Kind: backend.SGD})
	scales := []float64{1, 0x1p-140, 0x1p120}
	if !isSingle[T]() {
		scales = append(scales, 0x1p-1070, 0x1p-600, 0x1p1000)
	}
	for _, scale := range scales {
		s.sound(l)
		theta, grad := s.operand("theta", 1, 1, 2), s.input("grad", 1, 1, 2, []T{T(3 * scale), T(-4 * scale)})
		l.Update(theta.v, grad.v, nil, nil, nil)
		if got := s.outcome(l).Norm; !closeTo(got, 5*scale, 1e-12) {
			s.Errorf("Update: the norm of 3 and -4 times %g is %g", scale, got)
		}
		theta.unchanged("Update at rate 0")
	}
}

func misuseLearner[T backend.Float](s *suite[T]) {
	l := s.learner()
	x, y, labels, two := s.newVec(1, 2, 3), s.newVec(1, 2, 4), s.newVec(1, 2, 1), s.newVec(2, 2, 3)
	s.panics("Update before Prepare", func() { l.Update(x, x, nil, nil, nil) })
	s.panics("Prepare of a negative row", func() { l.Prepare([]int{0, -1}, backend.Optimizer{}) })
	l.Prepare([]int{0, 2}, backend.Optimizer{})
	gather := func(dst, src backend.Vec[T]) func() {
		return func() { l.Gather([]backend.Move[T]{{Dst: dst, Src: src}}) }
	}
	s.panics("Gather of a row that is not there", gather(x, s.newVec(1, 2, 3)))
	s.panics("Gather of other columns", gather(x, s.newVec(1, 3, 4)))
	s.panics("Gather of other blocks", gather(x, s.newVec(2, 3, 3)))
	s.panics("Gather to another number of rows", gather(s.newVec(1, 3, 3), s.newVec(1, 3, 3)))
	s.panics("Loss of another target", func() { l.Loss(backend.Loss{}, nil, x, y, nil, x) })
	s.panics("Loss to another derivative", func() { l.Loss(backend.Loss{}, nil, x, x, nil, two) })
	s.panics("Loss of other weights", func() { l.Loss(backend.Loss{}, nil, x, x, y, s.newVec(1, 2, 3)) })
	s.panics("Loss of a label an element", func() { l.Loss(backend.Loss{Kind: backend.CrossEntropy}, nil, x, y, nil, s.newVec(1, 2, 3)) })
	s.panics("Loss of weights for elements", func() { l.Loss(backend.Loss{Kind: backend.CrossEntropy}, nil, x, labels, x, s.newVec(1, 2, 3)) })
	s.panics("Update by another gradient", func() { l.Update(x, y, nil, nil, nil) })
	s.panics("Update with another memory", func() { l.Update(x, s.newVec(1, 2, 3), y, nil, nil) })
	o := s.another()
	defer o.Close()
	s.panics("Update of another backend's Vec", func() { l.Update(o.newVec(1, 2, 3), x, nil, nil, nil) })
	s.panics("Loss of another backend's Vec", func() { l.Loss(backend.Loss{}, nil, o.newVec(1, 2, 3), x, nil, s.newVec(1, 2, 3)) })
	s.panics("Gather from another backend's Vec", gather(x, o.newVec(1, 3, 3)))
}
