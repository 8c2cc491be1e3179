// Package table reads tables of observations for the command line: CSV, Parquet and NumPy
// files, as series of states over time.
package table

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Table is the contents of a file: columns of equal length.
type Table struct {
	Name    string // of the file, for errors
	Columns []Column
	lines   []int // of the file, for each row; nil if it has none
}

// Column is a column of numbers, with NaN for what is missing, or of texts.
type Column struct {
	Name    string
	Numbers []float64
	Texts   []string // nil if the file says that they are numbers
}

func (c *Column) len() int { return max(len(c.Numbers), len(c.Texts)) }

// MaxBytes is the size of the largest file that is read.
const MaxBytes = 4 << 30

// Read reads a file: .parquet, .npy, or CSV, which "-" takes from in.
func Read(path string, in io.Reader) (*Table, error) {
	if path == "-" {
		return ReadCSV("standard input", in)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, Explain(path, err)
	}
	switch {
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory; give a file in it", path)
	case info.Size() == 0 && info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is empty; it needs a header and rows", path)
	case info.Size() > MaxBytes:
		return nil, fmt.Errorf("%s has %.1f GB, and at most %d GB are read; take fewer rows or columns", path, float64(info.Size())/1e9, MaxBytes>>30)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, Explain(path, err)
	}
	defer f.Close()
	switch strings.ToLower(filepath.Ext(path)) {
	case ".parquet", ".pq":
		return readParquet(path, f, info.Size())
	case ".npy":
		return readNumPy(path, f)
	}
	return ReadCSV(path, f)
}

// Explain says what to do about a file that cannot be opened.
func Explain(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist; check the path", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read; change its permissions or copy it", path)
	}
	return err
}

// Rows is the number of rows.
func (t *Table) Rows() int {
	if len(t.Columns) == 0 {
		return 0
	}
	return t.Columns[0].len()
}

// Names lists the columns.
func (t *Table) Names() []string {
	var names []string
	for _, c := range t.Columns {
		names = append(names, c.Name)
	}
	return names
}

// where names a row for people.
func (t *Table) where(row int) string {
	if t.lines != nil {
		return fmt.Sprintf("%s, line %d", t.Name, t.lines[row])
	}
	return fmt.Sprintf("%s, row %d", t.Name, row+1)
}

// column finds a column by name.
func (t *Table) column(name string) (*Column, error) {
	i := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%s has no column %q; it has %s", t.Name, name, strings.Join(t.Names(), ", "))
	}
	return &t.Columns[i], nil
}

// missing are the texts that stand for no value.
var missing = []string{"", "na", "n/a", "nan", "null", "none", "-", "?"}

// Numbers returns a column as numbers, NaN where there is none.
func (t *Table) Numbers(name string) ([]float64, error) {
	c, err := t.column(name)
	if err != nil || c.Texts == nil {
		return c.numbers(), err
	}
	list := make([]float64, len(c.Texts))
	for i, s := range c.Texts {
		s = strings.TrimSpace(s)
		if slices.Contains(missing, strings.ToLower(s)) {
			list[i] = math.NaN()
			continue
		}
		if list[i], err = strconv.ParseFloat(s, 64); err != nil {
			hint := "leave the cell empty if the value is missing, or choose other columns"
			if strings.Count(s, ",") == 1 && !strings.Contains(s, ".") {
				hint = "write the decimal point as a point"
			}
			return nil, fmt.Errorf("%s, column %q: %q is no number; %s", t.where(i), name, short(s), hint)
		}
		if math.IsInf(list[i], 0) {
			return nil, fmt.Errorf("%s, column %q: %s is not finite; leave the cell empty if the value is missing", t.where(i), name, s)
		}
	}
	return list, nil
}

func (c *Column) numbers() []float64 {
	if c == nil {
		return nil
	}
	return c.Numbers
}

// texts returns a column as it is written.
func (t *Table) texts(name string) ([]string, error) {
	c, err := t.column(name)
	if err != nil || c.Texts != nil {
		if c == nil {
			return nil, err
		}
		return c.Texts, err
	}
	list := make([]string, len(c.Numbers))
	for i, x := range c.Numbers {
		list[i] = strconv.FormatFloat(x, 'g', -1, 64)
	}
	return list, nil
}

func short(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
