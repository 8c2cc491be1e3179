package backend

// Trainer is an optional capability of a Backend, found by type assertion: the loss
// of a batch, its gradient and the update of parameters without leaving the device.
type Trainer[T Float] interface {
	// NewLearner allocates a Learner, or returns ErrOutOfMemory. The caller closes it.
	NewLearner() (Learner[T], error)
}

// Learner makes training steps: Prepare, which says what this one does, then a Loss, a
// backward pass by other means that turns its derivative into the gradient of the
// parameters, an Update, and an Outcome, which reads a few words. All of them but Prepare
// and Outcome can be recorded once and replayed after every Prepare, unless Record refuses
// them. It belongs to one backend and is used as that is.
type Learner[T Float] interface {
	// Prepare sets the rows that Gather takes and the update that Update makes, from here
	// on. It enqueues, and is not recorded; rows may be used again when it returns.
	Prepare(rows []int, o Optimizer)
	// Gather sets row i of every block of Dst to row rows[i] of the same block of
	// Src, move after move. Dst has len(rows) rows, and otherwise Src's shape. It
	// enqueues.
	Gather(moves []Move[T])
	// Loss computes the loss of the predictions pred, n×B×D, for Outcome, and sets
	// grad, of pred's shape, to its derivative. It enqueues. The target y has pred's
	// shape, and for CrossEntropy n×B×1: of each row's D logits the class, a whole
	// number from 0, or a negative number, which leaves the row out. The weights w,
	// nil for 1, have y's shape; what weighs 0 is left out, whatever it holds. The loss
	// is NaN if a lane of solve, nil for none, is not [Done].
	Loss(l Loss, solve Clock, pred, y, w, grad Vec[T])
	// Update makes one update of theta, 1×1×P, by the gradient grad of that loss, and
	// measures grad for Outcome. It enqueues. Nothing is updated if the loss or
	// the norm of grad is not finite. m, v and a are the optimiser's memory, of theta's
	// shape, zero before the first update, and nil where its formulas have none.
	Update(theta, grad, m, v, a Vec[T])
	// Outcome waits and tells what the last Loss and Update did.
	Outcome() (Outcome, error)
	// Close releases the Learner. It is safe to call twice.
	Close()
}

// LossKind is the formula of a loss, as in package train.
type LossKind uint8

const (
	MSE LossKind = iota
	MAE
	Huber
	CrossEntropy
)

// Loss says how predictions are compared with targets: Σ w_i ℓ_i, over Σ w_i if Mean.
type Loss struct {
	Kind  LossKind
	Mean  bool
	Delta float64 // δ of Huber
}

// OptimizerKind is the formula of an update, as in package train.
type OptimizerKind uint8

const (
	Adam OptimizerKind = iota
	AdamW
	RMSprop
	SGD
)

// Optimizer is one update of an optimiser; package train has the formulas.
type Optimizer struct {
	Kind                OptimizerKind
	Step                int64   // updates with this one, from 1
	LR, WeightDecay     float64 // γ, λ
	Beta1, Beta2        float64 // of Adam and AdamW
	Alpha, Eps          float64 // of RMSprop; ε of all but SGD
	Momentum, Dampening float64 // μ, τ of SGD and RMSprop
	Nesterov            bool
	// Clip scales a gradient whose Euclidean norm is longer down to it, by
	// Clip/(norm+1e-6); 0: no limit.
	Clip float64
}

// Outcome is what a training step did.
type Outcome struct {
	Loss   float64
	Weight float64 // Σ w_i; the loss means nothing if it is 0
	Norm   float64 // Euclidean norm of the gradient, before clipping
	// BadParam is the first parameter that the update made not finite, or -1.
	BadParam int
}
