package backendtest

import "github.com/seed-5f5774c8/neuralode/backend"

// brokenLearner has hooks that change what a Learner is given, or says.
type brokenLearner[T backend.Float] struct {
	backend.Learner[T]
	prepare func(rows []int, o *backend.Optimizer)
	loss    func(l *backend.Loss, solve *backend.Clock, w *backend.Vec[T])
	outcome func(o *backend.Outcome)
}

func (h *broken[T]) NewLearner() (backend.Learner[T], error) {
	l, err := h.Backend.NewLearner()
	if err != nil || h.learner == nil {
		return l, err
	}
	x := *h.learner
	x.Learner = l
	return &x, nil
}

func (l *brokenLearner[T]) Prepare(rows []int, o backend.Optimizer) {
	rows = append([]int(nil), rows...)
	if l.prepare != nil {
		l.prepare(rows, &o)
	}
	l.Learner.Prepare(rows, o)
}

func (l *brokenLearner[T]) Loss(loss backend.Loss, solve backend.Clock, pred, y, w, grad backend.Vec[T]) {
	if l.loss != nil {
		l.loss(&loss, &solve, &w)
	}
	l.Learner.Loss(loss, solve, pred, y, w, grad)
}

func (l *brokenLearner[T]) Outcome() (backend.Outcome, error) {
	o, err := l.Learner.Outcome()
	if l.outcome != nil {
		l.outcome(&o)
	}
	return o, err
}

// learnerDefects are about a backend.Learner.
func learnerDefects[T backend.Float]() []defect[T] {
	update := func(name, cases string, change func(o *backend.Optimizer)) defect[T] {
		return defect[T]{name, cases, "Update", func(h *broken[T]) {
			h.learner = &brokenLearner[T]{prepare: func(_ []int, o *backend.Optimizer) { change(o) }}
		}}
	}
	loss := func(name, cases string, change func(l *backend.Loss, solve *backend.Clock, w *backend.Vec[T])) defect[T] {
		return defect[T]{name, cases, "Loss", func(h *broken[T]) { h.learner = &brokenLearner[T]{loss: change} }}
	}
	return []defect[T]{
		{"Gather takes the first row", "Gather/", "Gather", func(h *broken[T]) {
			h.learner = &brokenLearner[T]{prepare: func(rows []int, _ *backend.Optimizer) { clear(rows) }}
		}},
		loss("Loss without weights", "Loss/squares", func(_ *backend.Loss, _ *backend.Clock, w *backend.Vec[T]) { *w = nil }),
		loss("Loss is a sum", "Loss/labels", func(l *backend.Loss, _ *backend.Clock, _ *backend.Vec[T]) { l.Mean = false }),
		loss("Loss of squares for sizes", "Loss/sizes", func(l *backend.Loss, _ *backend.Clock, _ *backend.Vec[T]) { l.Kind = backend.MSE }),
		loss("Loss with another delta", "Loss/Huber", func(l *backend.Loss, _ *backend.Clock, _ *backend.Vec[T]) { l.Delta = 1 }),
		loss("Loss of lanes under way", "Loss/lanes", func(_ *backend.Loss, solve *backend.Clock, _ *backend.Vec[T]) { *solve = nil }),
		update("Update does not clip", "Update/SGD", func(o *backend.Optimizer) { o.Clip = 0 }),
		update("Update is always the first", "Update/Adam", func(o *backend.Optimizer) { o.Step = 1 }),
		update("Update without decay", "Update/RMSprop", func(o *backend.Optimizer) { o.WeightDecay = 0 }),
		update("Update by momentum alone", "Update/SGD, N", func(o *backend.Optimizer) { o.Nesterov = false }),
		{"Outcome names no parameter", "Update/what", "Update", func(h *broken[T]) {
			h.learner = &brokenLearner[T]{outcome: func(o *backend.Outcome) { o.BadParam = -1 }}
		}},
		{"Outcome with the norm of float32", "Update/norm", "Update", func(h *broken[T]) {
			h.learner = &brokenLearner[T]{outcome: func(o *backend.Outcome) { o.Norm = float64(float32(o.Norm*o.Norm)) / o.Norm }}
		}},
	}
}
