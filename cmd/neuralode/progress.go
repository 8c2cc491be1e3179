package main

import (
	"fmt"
	"io"
	"math"
	"time"

	"golang.org/x/term"

	"github.com/seed-5f5774c8/neuralode/train"
)

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress shows how a run goes: a line that is redrawn on a terminal, few lines elsewhere.
type progress struct {
	w      io.Writer
	redraw bool
	total  int // updates
	count  interface{ Evaluations() int64 }
	began  time.Time
	first  int // updates of an earlier run
	shown  time.Time
	line   string // not on the screen yet
}

func newProgress(w io.Writer, total int, obj any) *progress {
	p := &progress{w: w, redraw: !plain(w), total: total, began: time.Now(), first: -1}
	p.count, _ = obj.(interface{ Evaluations() int64 })
	return p
}

// epoch shows the end of one of so many epochs.
func (p *progress) epoch(r train.Record, epochs int) {
	if p.first < 0 {
		p.first = r.Step - r.Step/max(r.Epoch, 1) // an epoch's updates were made just now
	}
	p.line = fmt.Sprintf("epoch %d/%d  loss %.4g", r.Epoch, epochs, r.Loss)
	if !math.IsNaN(r.Validation) {
		p.line += fmt.Sprintf("  validation %.4g", r.Validation)
	}
	if p.count != nil && p.count.Evaluations() > 0 { // 0: a device that makes updates does not count
		p.line += fmt.Sprintf("  evaluations %d", p.count.Evaluations())
	}
	if took := time.Since(p.began).Seconds(); took > 0 {
		rate := float64(r.Step-p.first) / took
		left := time.Duration(float64(p.total-r.Step) / rate * float64(time.Second))
		p.line += fmt.Sprintf("  %.3g steps/s  %v left", rate, left.Round(time.Second))
	}
	every := 10 * time.Second
	if p.redraw {
		every = 100 * time.Millisecond
	}
	if time.Since(p.shown) >= every || r.Step == p.total {
		p.draw()
	}
}

func (p *progress) draw() {
	p.shown = time.Now()
	if p.redraw {
		fmt.Fprintf(p.w, "\r%s\x1b[K", p.line)
	} else {
		fmt.Fprintln(p.w, p.line)
	}
	p.line = ""
}

// close leaves the last line on the screen.
func (p *progress) close() {
	if p.line != "" {
		p.draw()
	}
	if p.redraw && !p.shown.IsZero() {
		fmt.Fprintln(p.w)
	}
}
