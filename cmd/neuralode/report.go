package main

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"math"
	"os"

	"gonum.org/v1/plot"

	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/internal/picture"
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
{{end}}{{if .Phase}}<h2>Phase portrait</h2>
{{.Phase}}
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
		Loss, Phase                    template.HTML
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
	if page.Loss, err = svg(lossPlot(history), 9); err != nil {
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
	if len(m.States) > 1 && len(list) > 0 {
		s := &scene{m: m, starts: m.Series[:n], points: d.series[:n], list: list}
		p, err := s.phase(&portrait{at: m.Series[0].Time, grid: 20})
		if err != nil {
			return err
		}
		if page.Phase, err = svg(p, 14); err != nil {
			return err
		}
	}
	for i := range list {
		text, err := svg(fitPlot(d, i, m, &list[i]), 9)
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

// svg draws p as an element of HTML, so many centimetres high.
func svg(p *plot.Plot, height float64) (template.HTML, error) {
	var b bytes.Buffer
	if err := picture.Write(&b, "svg", picture.Layout{Width: 18, Height: height}, p); err != nil {
		return "", err
	}
	text := b.Bytes()
	return template.HTML(text[max(bytes.Index(text, []byte("<svg")), 0):]), nil // without the head of an XML file
}

// fitPlot is series i, its observations as points and the solution as lines.
func fitPlot(d *dataset, i int, m *modelfile.File, tr *trajectory) *plot.Plot {
	s := &d.series[i]
	title := s.ID
	if d.kept[i] == 0 {
		title += " (held out)"
	}
	p := picture.Panel(title, m.Time, "")
	for j, name := range m.States {
		addLine(p, j, name, tr.course(j))
		addDots(p, j, observed(s, j))
	}
	return p
}
