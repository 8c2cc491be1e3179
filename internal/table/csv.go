package table

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// ReadCSV reads text with a header, in UTF-8, separated by commas, semicolons or tabs.
func ReadCSV(name string, r io.Reader) (*Table, error) {
	in := bufio.NewReader(io.LimitReader(r, MaxBytes+1))
	begin, err := in.Peek(4096)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	const convert = "; save it as UTF-8 (for instance: iconv -f UTF-16 -t UTF-8)"
	switch {
	case len(bytes.TrimSpace(begin)) == 0:
		return nil, fmt.Errorf("%s is empty; it needs a header and rows", name)
	case bytes.HasPrefix(begin, []byte{0xff, 0xfe}), bytes.HasPrefix(begin, []byte{0xfe, 0xff}):
		return nil, fmt.Errorf("%s is in UTF-16%s", name, convert)
	case bytes.HasPrefix(begin, []byte("PAR1")):
		return nil, fmt.Errorf("%s is a Parquet file; give it the name extension .parquet", name)
	case bytes.IndexByte(begin, 0) >= 0:
		return nil, fmt.Errorf("%s is not text: it has bytes that are 0; CSV, Parquet (.parquet) and NumPy (.npy) files are read", name)
	}
	if bom := []byte("\xef\xbb\xbf"); bytes.HasPrefix(begin, bom) {
		in.Discard(len(bom))
		begin = begin[len(bom):]
	}
	header, _, _ := bytes.Cut(begin, []byte("\n"))
	c := csv.NewReader(in)
	c.TrimLeadingSpace = true
	for _, sep := range ";\t" {
		if strings.Count(string(header), string(sep)) > strings.Count(string(header), string(c.Comma)) {
			c.Comma = sep
			c.TrimLeadingSpace = sep != '\t' // an empty cell is one, too
		}
	}
	t := &Table{Name: name}
	seen := map[string]bool{}
	for {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if errors.Is(err, csv.ErrFieldCount) {
			line, _ := c.FieldPos(0)
			return nil, fmt.Errorf("%s, line %d has %d cells, and the header %d; write a separator for every column", name, line, len(record), len(t.Columns))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		line, _ := c.FieldPos(0)
		if c.InputOffset() > MaxBytes {
			return nil, fmt.Errorf("%s has more than the %d GB that are read; take fewer rows or columns", name, MaxBytes>>30)
		}
		for _, cell := range record {
			if !utf8.ValidString(cell) {
				return nil, fmt.Errorf("%s, line %d is not in UTF-8%s", name, line, strings.Replace(convert, "UTF-16", "LATIN1", 1))
			}
		}
		if t.Columns == nil {
			for i, cell := range record {
				cell = strings.TrimSpace(cell)
				switch {
				case cell == "":
					return nil, fmt.Errorf("%s: column %d of the header has no name; give it one", name, i+1)
				case seen[cell]:
					return nil, fmt.Errorf("%s has two columns %q; rename one", name, cell)
				}
				seen[cell] = true
				t.Columns = append(t.Columns, Column{Name: cell, Texts: []string{}})
			}
			continue
		}
		t.lines = append(t.lines, line)
		for i, cell := range record {
			t.Columns[i].Texts = append(t.Columns[i].Texts, cell)
		}
	}
}
