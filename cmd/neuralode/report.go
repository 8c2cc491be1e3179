package main

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"math"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/train"
)

// reportSeries is the number of series that a report draws.
const reportSeries = 6

var reportPage = template.Must(template.New("report").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Data}}: a Neural ODE</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em }
td, th { text-align: left; padding: .1em 1em .1em 0 } pre { background: #f4f4f4; padding: 1em } svg { max-width: 100%; height: auto }
</style></head><body>
<h1>{{.Data}}</h1>
<table>
<tr><th>model</th><td>{{.Formula}}, {{.Out.Parameters}} parameters</td></tr>
<tr><th>ended</th><td>{{.Out.Stop}}, after {{.Out.Epochs}} epochs, {{.Out.Updates}} updates, {{printf "%.1f" .Out.Seconds}} s{{if .Out.Resumed}} since update {{.Out.Resumed}}{{end}}</td></tr>
<tr><th>best loss</th><td>{{printf "%.4g" .Out.BestLoss}}, after update {{.Out.BestUpdate}}</td></tr>
<tr><th>held out</th><td>by {{.Out.ValidatedBy}}</td></tr>
<tr><th>time</th><td>{{.Meta.Time}}, from {{.From}} to {{.To}}; {{.Out.Series}} series, {{.Rows}} rows, {{.Missing}} missing values</td></tr>
</table>
<h2>Data</h2>
<table><tr><th>state</th><th>mean</th><th>standard deviation</th></tr>
{{range $i, $name := .Meta.States}}<tr><td>{{$name}}</td><td>{{index $.Meta.Shift $i}}</td><td>{{index $.Meta.Scale $i}}</td></tr>
{{end}}</table>
{{range .Out.Remarks}}<p>{{.}}</p>
{{end}}<h2>Loss</h2>
{{.Loss}}
<h2>Solutions</h2>
{{range .Fits}}{{.}}
{{end}}{{if .Problem}}<p>{{.Problem}}</p>{{end}}
<h2>Settings</h2>
<pre>{{.Config}}</pre>
</body></html>
`))

// report writes report.html.
func (r *runFolder) report(out outcome, config string, d *dataset, m *modelfile.File, history []train.Record) error {
	page := struct {
		Data, Formula, Config, Problem string
		Out                            outcome
		Meta                           modelfile.Meta
		From, To                       float64
		Rows, Missing                  int
		Loss                           template.HTML
		Fits                           []template.HTML
	}{Data: "Solutions of dz/dt = f(z, t)", Formula: fmt.Sprint(m.Model.Spec.Widths), Config: config, Out: out, Meta: m.Meta, From: math.Inf(1), To: math.Inf(-1)}
	for _, s := range d.series {
		page.From, page.To = min(page.From, s.Times[0]), max(page.To, s.Times[len(s.Times)-1])
		page.Rows += len(s.Times)
		for _, v := range s.Values {
			if math.IsNaN(v) {
				page.Missing++
			}
		}
	}
	var err error
	if page.Loss, err = svg(lossPlot(history)); err != nil {
		return err
	}
	n := min(len(d.series), reportSeries)
	set, err := m.Settings()
	if err != nil {
		return err
	}
	list, err := solveFrom(context.Background(), "cpu", m, set, m.Series[:n], nil)
	if err != nil {
		page.Problem = err.Error()
	}
	for i := range list {
		text, err := svg(fitPlot(d, i, m, &list[i]))
		if err != nil {
			return err
		}
		page.Fits = append(page.Fits, text)
	}
	var b bytes.Buffer
	if err := reportPage.Execute(&b, page); err != nil {
		return err
	}
	return os.WriteFile(out.Report, b.Bytes(), 0o666)
}

// svg draws p as an element of HTML.
func svg(p *plot.Plot) (template.HTML, error) {
	w, err := p.WriterTo(18*vg.Centimeter, 9*vg.Centimeter, "svg")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		return "", err
	}
	text := b.Bytes()
	return template.HTML(text[max(bytes.Index(text, []byte("<svg")), 0):]), nil // without the head of an XML file
}

// addLine draws finite points as a line, in the colour of number k; without any, nothing.
func addLine(p *plot.Plot, k int, name string, xy plotter.XYs) {
	line, err := plotter.NewLine(xy)
	if err != nil {
		return
	}
	line.Color = plotutil.Color(k)
	p.Add(line)
	p.Legend.Add(name, line)
}

// lossPlot is the course of a run.
func lossPlot(history []train.Record) *plot.Plot {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = "epoch", "loss, in the model's units"
	p.Legend.Top = true
	var loss, validation plotter.XYs
	for _, r := range history {
		if r.Loss > 0 {
			loss = append(loss, plotter.XY{X: float64(r.Epoch), Y: r.Loss})
		}
		if r.Validation > 0 {
			validation = append(validation, plotter.XY{X: float64(r.Epoch), Y: r.Validation})
		}
	}
	addLine(p, 0, "training", loss)
	addLine(p, 1, "validation", validation)
	if len(loss)+len(validation) > 0 && p.Y.Min < p.Y.Max {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	return p
}

// fitPlot is series i, its observations as points and the solution as lines.
func fitPlot(d *dataset, i int, m *modelfile.File, tr *trajectory) *plot.Plot {
	s := &d.series[i]
	p := plot.New()
	p.Title.Text = s.ID
	if d.kept[i] == 0 {
		p.Title.Text += " (held out)"
	}
	p.X.Label.Text = m.Time
	p.Legend.Top = true
	for j, name := range m.States {
		var points, line plotter.XYs
		for row, t := range s.Times {
			if x := s.Row(row)[j]; !math.IsNaN(x) {
				points = append(points, plotter.XY{X: t, Y: x})
			}
		}
		for row, t := range tr.Times {
			line = append(line, plotter.XY{X: t, Y: tr.States[row][j]})
		}
		addLine(p, j, name, line)
		if dots, err := plotter.NewScatter(points); err == nil {
			dots.Color, dots.Radius = plotutil.Color(j), 2
			p.Add(dots)
		}
	}
	return p
}
