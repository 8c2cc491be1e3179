package main

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-5f5774c8/neuralode/train"
)

//go:embed hare_lynx.csv
var recordCSV string

// unit is what the models count in, in thousands of pelts: it keeps the state near
// 1, where a tanh network works well.
const unit = 20

// record is the pelts taken year by year.
type record struct {
	years []float64
	u     []float64 // units, row-major [years, 2]: hare, lynx
}

// readRecord parses the file embedded in the program.
func readRecord() (record, error) {
	r := csv.NewReader(strings.NewReader(recordCSV))
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil {
		return record{}, fmt.Errorf("hare_lynx.csv: %w", err)
	}
	var rec record
	for _, row := range rows[1:] { // the first names the columns: year, hare, lynx
		var v [3]float64
		for i := range v {
			if v[i], err = strconv.ParseFloat(row[i], 64); err != nil {
				return record{}, fmt.Errorf("hare_lynx.csv: %w", err)
			}
		}
		rec.years = append(rec.years, v[0])
		rec.u = append(rec.u, v[1]/unit, v[2]/unit)
	}
	return rec, nil
}

// whole is the record as one sample: a trajectory through all years.
func (r record) whole() train.Data[float64] { return r.windows(len(r.years)) }

// windows cuts the record into samples of n years, one from every year that has n
// to follow. Neither model knows what year it is, so all samples may count their
// years from the first.
func (r record) windows(n int) train.Data[float64] {
	samples := len(r.years) - n + 1
	data := train.Data[float64]{Times: r.years[:n], Z0: r.u[:2*samples]}
	for year := range n {
		data.Targets = append(data.Targets, r.u[2*year:2*(year+samples)]...)
	}
	return data
}
