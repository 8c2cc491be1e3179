package main

import (
	"bytes"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/train"
)

// The shells get the values of flags that have few.
func TestCompletion(t *testing.T) {
	for args, want := range map[string]string{
		"train --method ":       "tsit5\ndopri5\n",
		"train --loss ":         "mse\nmae\nhuber\n",
		"convert --time ":       "none\ninput\nevery_layer\n",
		"predict --format ":     "csv\nparquet\njson\n",
		"plot phase --format ":  "png\nsvg\npdf\n",
		"plot pha":              "phase\tDraw a phase portrait with the field\n",
		"bench --stepping ":     "joint\nper_sample\n",
		"check --backend ":      "auto\ncpu\ngpu\n",
		"convert --activation ": "identity\ntanh\n",
		"train --validate-by ":  "auto\nseries\ntime\n",
	} {
		out := succeed(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if !strings.HasPrefix(out, want) {
			t.Errorf("%s completes to\n%s, want %q", args, out, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := succeed(t, "completion", shell); !strings.Contains(out, "neuralode") {
			t.Errorf("completion %s gives\n%s", shell, out)
		}
	}
}

// A terminal has one line that is redrawn; with NO_COLOR, or elsewhere, lines are plain.
func TestProgress(t *testing.T) {
	for _, redraw := range []bool{true, false} {
		var b bytes.Buffer
		p := newProgress(&b, 4, nil)
		p.redraw = redraw
		for i := range 4 {
			p.epoch(train.Record{Epoch: i + 1, Step: i + 1, Loss: 0.5, Validation: math.NaN()}, 4)
		}
		p.close()
		out := b.String()
		if strings.Contains(out, "\x1b") != redraw || !strings.HasSuffix(out, "\n") || !strings.Contains(out, "epoch 4/4  loss 0.5") || strings.Contains(out, "validation") {
			t.Errorf("redraw %v: %q", redraw, out)
		}
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil || !terminal(tty) {
		t.Skip("this system has no /dev/ptmx that is a terminal")
	}
	defer tty.Close()
	for value, want := range map[string]bool{"": false, "1": true} {
		t.Setenv("NO_COLOR", value)
		if plain(tty) != want || newProgress(tty, 1, nil).redraw == want {
			t.Errorf("NO_COLOR=%q: a terminal is plain: %v", value, plain(tty))
		}
	}
}
