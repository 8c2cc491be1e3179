package train

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// reporter shows how a run goes: a bar on a terminal, lines elsewhere.
type reporter struct {
	w        io.Writer // nil: silent
	bar      *progressbar.ProgressBar
	title    string
	unit     string // what Record.Epoch counts
	total    int    // updates
	perEpoch int    // updates
	every    int    // epochs between lines
	last     Record
	shown    time.Time
	printed  bool // last is the last line
}

const (
	lines     = 20                     // that a run prints about
	longest   = 10 * time.Second       // without a line
	barPeriod = 100 * time.Millisecond // between redraws
)

func newReporter(w io.Writer, title, unit string, total, perEpoch int) *reporter {
	file, ok := w.(interface{ Fd() uintptr })
	return makeReporter(w, ok && term.IsTerminal(int(file.Fd())), title, unit, total, perEpoch)
}

func makeReporter(w io.Writer, terminal bool, title, unit string, total, perEpoch int) *reporter {
	if title != "" {
		title += ": "
	}
	r := &reporter{w: w, title: title, unit: unit, total: total, perEpoch: perEpoch, shown: time.Now()}
	r.every = max((r.epochs()+lines-1)/lines, 1)
	if w != nil && terminal {
		r.bar = progressbar.NewOptions(max(total, 1),
			progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(20), progressbar.OptionShowCount(),
			progressbar.OptionClearOnFinish())
	}
	return r
}

func (r *reporter) epochs() int { return (r.total + r.perEpoch - 1) / r.perEpoch }

// resume says that a run continues after so many updates.
func (r *reporter) resume(step int) {
	if r.w == nil || step == 0 {
		return
	}
	fmt.Fprintf(r.w, "%scontinues after step %d\n", r.title, step)
	if r.bar != nil {
		r.bar.Set(step)
	}
}

// step shows an update, or an epoch after its last one.
func (r *reporter) step(now Record) {
	if r.w == nil {
		return
	}
	r.last, r.printed = now, false
	if r.bar != nil {
		if time.Since(r.shown) >= barPeriod || now.Step == r.total {
			r.shown = time.Now()
			r.bar.Describe(r.line(now))
			r.bar.Set(now.Step)
		}
		return
	}
	due := now.Step%r.perEpoch == 0 && now.Epoch%r.every == 0
	if due || now.Step == r.total || time.Since(r.shown) >= longest {
		r.print()
	}
}

func (r *reporter) print() {
	r.shown, r.printed = time.Now(), true
	fmt.Fprintln(r.w, r.line(r.last))
}

func (r *reporter) line(now Record) string {
	s := fmt.Sprintf("%s%s %d/%d  loss %.4g", r.title, r.unit, now.Epoch, r.epochs(), now.Loss)
	if !math.IsNaN(now.Validation) {
		s += fmt.Sprintf("  validation %.4g", now.Validation)
	}
	if now.LR > 0 {
		s += fmt.Sprintf("  lr %.3g", now.LR)
	}
	return s + fmt.Sprintf("  gradient %.3g", now.GradNorm)
}

// close leaves the last state on the screen.
func (r *reporter) close() {
	if r.w == nil {
		return
	}
	if r.bar != nil {
		r.bar.Clear()
		r.bar.Exit()
	}
	if r.last.Step > 0 && !r.printed {
		r.print()
	}
}
