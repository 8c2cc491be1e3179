package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/seed-5f5774c8/neuralode/internal/table"
	"github.com/seed-5f5774c8/neuralode/train"
)

// runFolder is where a run's results lie.
type runFolder struct {
	path    string
	settled bool // config.yaml is of this run
}

func (r *runFolder) file(name string) string { return filepath.Join(r.path, name) }

// open makes the folder, and sees to what an earlier run left there.
func (r *runFolder) open(t *training) error {
	if err := os.MkdirAll(r.path, 0o777); err != nil {
		return err
	}
	if t.resume {
		return nil
	}
	for _, name := range []string{"checkpoint.safetensors", "model.safetensors"} {
		if _, err := os.Stat(r.file(name)); err == nil && !t.overwrite {
			return usagef("%s holds a run; --resume goes on with it, --overwrite begins afresh, or give another --out", r.path)
		}
	}
	for _, name := range []string{"checkpoint.safetensors", "metrics.jsonl"} {
		if err := os.Remove(r.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// settings writes config.yaml, once. It waits for the first epoch: a checkpoint that is of
// other settings is found by then, and keeps its own.
func (r *runFolder) settings(config []byte) error {
	if r.settled {
		return nil
	}
	r.settled = true
	return os.WriteFile(r.file("config.yaml"), config, 0o666)
}

// metricsLine is an epoch in metrics.jsonl.
type metricsLine struct {
	Epoch      int      `json:"epoch"`
	Update     int      `json:"update"`
	Loss       float64  `json:"loss"`
	Validation *float64 `json:"validation,omitempty"`
	LR         float64  `json:"lr"`
	GradNorm   float64  `json:"gradient_norm"`
}

// jsonLine is a record as a line of JSON.
func jsonLine(r train.Record) ([]byte, error) {
	line := metricsLine{Epoch: r.Epoch, Update: r.Step, Loss: r.Loss, LR: r.LR, GradNorm: r.GradNorm}
	if !math.IsNaN(r.Validation) {
		line.Validation = &r.Validation
	}
	text, err := json.Marshal(line)
	return append(text, '\n'), err
}

// append adds an epoch to metrics.jsonl, for those who follow the run.
func (r *runFolder) append(record train.Record) error {
	line, err := jsonLine(record)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(r.file("metrics.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Close())
}

// metrics writes the whole history, with the epochs before a resume.
func (r *runFolder) metrics(history []train.Record) error {
	var lines, table bytes.Buffer
	w := csv.NewWriter(&table)
	w.Write([]string{"epoch", "update", "loss", "validation", "lr", "gradient_norm"})
	for _, h := range history {
		line, err := jsonLine(h)
		if err != nil {
			return err
		}
		lines.Write(line)
		row := []string{strconv.Itoa(h.Epoch), strconv.Itoa(h.Step)}
		for _, x := range []float64{h.Loss, h.Validation, h.LR, h.GradNorm} {
			text := ""
			if !math.IsNaN(x) {
				text = fmt.Sprint(x)
			}
			row = append(row, text)
		}
		w.Write(row)
	}
	w.Flush()
	return errors.Join(w.Error(),
		os.WriteFile(r.file("metrics.csv"), table.Bytes(), 0o666),
		os.WriteFile(r.file("metrics.jsonl"), lines.Bytes(), 0o666))
}

// readMetrics reads the history of a run: of a folder, whose run may still go on, or of a
// file of metrics.
func readMetrics(path string) ([]train.Record, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "metrics.jsonl")
	}
	var history []train.Record
	var err error
	if strings.EqualFold(filepath.Ext(path), ".csv") {
		history, err = readMetricsCSV(path)
	} else {
		history, err = readMetricsLines(path)
	}
	if err == nil && len(history) == 0 {
		err = fmt.Errorf("%s has no epochs yet; wait for the first", path)
	}
	return history, err
}

func readMetricsCSV(path string) ([]train.Record, error) {
	tab, err := table.Read(path, nil)
	if err != nil {
		return nil, err
	}
	var columns [3][]float64
	for i, name := range []string{"epoch", "loss", "validation"} {
		if columns[i], err = tab.Numbers(name); err != nil {
			return nil, err
		}
	}
	history := make([]train.Record, tab.Rows())
	for i := range history {
		history[i] = train.Record{Epoch: int(columns[0][i]), Loss: columns[1][i], Validation: columns[2][i]}
	}
	return history, nil
}

func readMetricsLines(path string) ([]train.Record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, table.Explain(path, err)
	}
	var history []train.Record
	for n, line := range bytes.SplitAfter(text, []byte("\n")) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // nothing, or what is being written
		}
		var m metricsLine
		if err := json.Unmarshal(line, &m); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w; give a metrics file that train wrote", path, n+1, err)
		}
		r := train.Record{Epoch: m.Epoch, Loss: m.Loss, Validation: math.NaN()}
		if m.Validation != nil {
			r.Validation = *m.Validation
		}
		history = append(history, r)
	}
	return history, nil
}
