package table

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/parquet-go/parquet-go"
	"github.com/sbinet/npyio/npy"
)

// readParquet reads the flat columns of a Parquet file.
func readParquet(name string, r io.ReaderAt, size int64) (t *Table, err error) {
	defer func() { // the library panics on some damaged files
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("%s is a damaged Parquet file: %v", name, p)
		}
	}()
	f, err := parquet.OpenFile(r, size)
	if err != nil {
		return nil, fmt.Errorf("%s is no Parquet file that can be read: %w", name, err)
	}
	t = &Table{Name: name}
	for _, field := range f.Schema().Fields() {
		if !field.Leaf() || field.Repeated() {
			return nil, fmt.Errorf("%s: column %q is nested; only flat columns are read", name, field.Name())
		}
		c := Column{Name: field.Name()}
		if kind := field.Type().Kind(); kind == parquet.ByteArray || kind == parquet.FixedLenByteArray {
			c.Texts = []string{}
		}
		t.Columns = append(t.Columns, c)
	}
	for _, group := range f.RowGroups() {
		if err := t.addRows(group); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return t, nil
}

func (t *Table) addRows(group parquet.RowGroup) error {
	rows := group.Rows()
	defer rows.Close()
	buffer := make([]parquet.Row, 256)
	for {
		n, err := rows.ReadRows(buffer)
		for _, row := range buffer[:n] {
			for _, v := range row {
				c := &t.Columns[v.Column()]
				if c.Texts != nil {
					text := ""
					if !v.IsNull() {
						text = v.String()
					}
					c.Texts = append(c.Texts, text)
					continue
				}
				x, err := number(v)
				if err != nil {
					return fmt.Errorf("row %d, column %q: %w", len(c.Numbers)+1, c.Name, err)
				}
				c.Numbers = append(c.Numbers, x)
			}
		}
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func number(v parquet.Value) (float64, error) {
	x := math.NaN()
	switch {
	case v.IsNull():
	case v.Kind() == parquet.Boolean:
		x = 0
		if v.Boolean() {
			x = 1
		}
	case v.Kind() == parquet.Int32:
		x = float64(v.Int32())
	case v.Kind() == parquet.Int64:
		x = float64(v.Int64())
	case v.Kind() == parquet.Float:
		x = float64(v.Float())
	case v.Kind() == parquet.Double:
		x = v.Double()
	default:
		return 0, fmt.Errorf("values of type %v are no numbers; choose other columns", v.Kind())
	}
	if math.IsInf(x, 0) {
		return 0, errors.New("the value is not finite; write null if it is missing")
	}
	return x, nil
}

// readNumPy reads an array [rows, columns] of numbers. Its columns are called time, x0,
// x1, ….
func readNumPy(name string, r io.Reader) (*Table, error) {
	f, err := npy.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%s is no NumPy file that can be read: %w", name, err)
	}
	shape := f.Header.Descr.Shape
	if len(shape) != 2 || shape[1] < 2 {
		return nil, fmt.Errorf("%s is an array of shape %v; give one of [rows, columns], the first column the time", name, shape)
	}
	rows, columns := shape[0], shape[1]
	if rows < 0 || rows > MaxBytes/8/columns {
		return nil, fmt.Errorf("%s is an array of shape %v, larger than the %d GB that are read", name, shape, MaxBytes>>30)
	}
	var flat []float64
	switch f.Header.Descr.Type {
	case "<f8", ">f8":
		err = f.Read(&flat)
	case "<f4", ">f4":
		var single []float32
		err = f.Read(&single)
		for _, x := range single {
			flat = append(flat, float64(x))
		}
	default:
		return nil, fmt.Errorf("%s holds %q; save it as float64 or float32", name, f.Header.Descr.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	t := &Table{Name: name}
	for j := range columns {
		c := Column{Name: "time", Numbers: make([]float64, rows)}
		if j > 0 {
			c.Name = fmt.Sprintf("x%d", j-1)
		}
		for i := range c.Numbers {
			at := i*columns + j
			if f.Header.Descr.Fortran {
				at = j*rows + i
			}
			c.Numbers[i] = flat[at]
			if math.IsInf(flat[at], 0) {
				return nil, fmt.Errorf("%s: element [%d, %d] is not finite; write NaN if it is missing", name, i, j)
			}
		}
		t.Columns = append(t.Columns, c)
	}
	return t, nil
}
