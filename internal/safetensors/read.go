package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	lengthSize  = 8           // bytes of the header's length
	maxHeader   = 100_000_000 // bytes of a header, the limit of the reference implementation
	metadataKey = "__metadata__"
)

// File is the content of a safetensors file.
type File struct {
	// Tensors in the order of their data. Each Data is a part of the slice given
	// to Read.
	Tensors []Tensor
	// Metadata is free text by key, nil if the file has none.
	Metadata map[string]string
}

// Tensor finds a tensor by its name.
func (f *File) Tensor(name string) (Tensor, bool) {
	for _, t := range f.Tensors {
		if t.Name == name {
			return t, true
		}
	}
	return Tensor{}, false
}

// Read parses a whole file. The tensors share b's memory, which must not change
// while they are in use. Any violation of the format is a [*FormatError], with
// no File: a truncated file, a header that is too long, invalid UTF-8 or JSON,
// a key given twice or unknown, an unknown type, a shape or an offset that is
// negative, out of range or in disagreement with the other, tensors that overlap
// or leave holes, and bytes after the last one.
func Read(b []byte) (*File, error) {
	header, err := splitHeader(b)
	if err != nil {
		return nil, err
	}
	p, err := newParser(header)
	if err != nil {
		return nil, err
	}
	f, ranges, err := p.file()
	if err != nil {
		return nil, err
	}
	start := lengthSize + len(header)
	if err := place(f.Tensors, ranges, start, b[start:]); err != nil {
		return nil, err
	}
	slices.SortStableFunc(f.Tensors, func(s, t Tensor) int {
		if s.Offset != t.Offset {
			return int(s.Offset - t.Offset)
		}
		return len(s.Data) - len(t.Data)
	})
	return f, nil
}

// splitHeader finds the header behind its length.
func splitHeader(b []byte) ([]byte, error) {
	if len(b) < lengthSize {
		return nil, headerError(0, "the file has %d bytes, too few for the length of a header; it is truncated or no safetensors file", len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	if n > maxHeader {
		return nil, headerError(0, "the header's length %d is above the limit of %d; this is no safetensors file", n, maxHeader)
	}
	if rest := uint64(len(b) - lengthSize); n > rest {
		return nil, headerError(0, "the header's length is %d, but only %d bytes follow; the file is truncated, fetch it again", n, rest)
	}
	return b[lengthSize : lengthSize+n], nil
}

// byteRange is where a tensor's data lies, counted from the end of the header,
// and where the header says so.
type byteRange struct {
	begin, end uint64
	at         int64
}

// place gives every tensor its part of data, which begins at byte start of the
// file, and checks that the parts follow each other without overlap or hole.
func place(tensors []Tensor, ranges []byteRange, start int, data []byte) error {
	for i := range tensors {
		t, r := &tensors[i], ranges[i]
		fail := func(format string, args ...any) error {
			return &FormatError{Offset: r.at, Tensor: t.Name, Text: fmt.Sprintf(format, args...)}
		}
		if r.begin > r.end {
			return fail("data_offsets [%d, %d] run backwards; the file is damaged", r.begin, r.end)
		}
		if r.end > uint64(len(data)) {
			return fail("data_offsets [%d, %d] reach beyond the %d bytes of data; the file is truncated, fetch it again", r.begin, r.end, len(data))
		}
		n, ok := count(t.Shape)
		hi, size := bits.Mul64(n, uint64(t.DType.Size()))
		if !ok || hi != 0 {
			return fail("shape %v overflows; the file is damaged", t.Shape)
		}
		if size != r.end-r.begin {
			return fail("%s of shape %v takes %d bytes, but data_offsets [%d, %d] hold %d; the file is damaged", t.DType, t.Shape, size, r.begin, r.end, r.end-r.begin)
		}
		t.Data = data[r.begin:r.end:r.end]
		t.Offset = int64(start) + int64(r.begin)
	}
	order := make([]int, len(tensors))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		if a, b := ranges[i].begin, ranges[j].begin; a != b {
			return cmpUint(a, b)
		}
		return cmpUint(ranges[i].end, ranges[j].end)
	})
	var end uint64
	for _, i := range order {
		r := ranges[i]
		switch {
		case r.begin < end:
			return &FormatError{Offset: r.at, Tensor: tensors[i].Name, Text: fmt.Sprintf("data_offsets [%d, %d] overlap the tensor that ends at %d; the file is damaged", r.begin, r.end, end)}
		case r.begin > end:
			return &FormatError{Offset: r.at, Tensor: tensors[i].Name, Text: fmt.Sprintf("data_offsets [%d, %d] leave a hole of %d bytes; the file is damaged", r.begin, r.end, r.begin-end)}
		}
		end = r.end
	}
	if extra := uint64(len(data)) - end; extra != 0 {
		return &FormatError{Offset: int64(start) + int64(end), Text: fmt.Sprintf("%d bytes follow the last tensor; the file is damaged or holds something else too", extra)}
	}
	return nil
}

func cmpUint(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// parser walks the header's JSON token by token, because encoding/json silently
// takes the last of two equal keys.
type parser struct{ dec *json.Decoder }

func newParser(header []byte) (*parser, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, headerError(0, "the header does not begin with '{'; this is no safetensors file")
	}
	if !utf8.Valid(header) {
		i := 0
		for i < len(header) {
			r, n := utf8.DecodeRune(header[i:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			i += n
		}
		return nil, headerError(i, "the header is not valid UTF-8; the file is damaged")
	}
	// Checked as a whole first: a Decoder's tokens alone do not guarantee it.
	var raw json.RawMessage
	if err := json.Unmarshal(header, &raw); err != nil {
		at := 0
		if s := (*json.SyntaxError)(nil); errors.As(err, &s) {
			at = int(s.Offset)
		}
		return nil, headerError(at, "the header is not valid JSON (%v); the file is damaged", err)
	}
	dec := json.NewDecoder(bytes.NewReader(header))
	dec.UseNumber()
	return &parser{dec: dec}, nil
}

// headerError is about byte i of the header.
func headerError(i int, format string, args ...any) error {
	return &FormatError{Offset: lengthSize + int64(i), Text: fmt.Sprintf(format, args...)}
}

func (p *parser) at() int64 { return lengthSize + p.dec.InputOffset() }

func (p *parser) fail(tensor, format string, args ...any) error {
	return &FormatError{Offset: p.at(), Tensor: tensor, Text: fmt.Sprintf(format, args...)}
}

// token returns the next token. The header is known to be valid JSON.
func (p *parser) token() json.Token {
	t, err := p.dec.Token()
	if err != nil {
		return nil // reads as null, which is nowhere allowed
	}
	return t
}

// object calls member for every key of an object, whose '{' comes next, with the
// decoder before the value. what names the object in errors.
func (p *parser) object(tensor, what string, member func(key string) error) error {
	if p.token() != json.Delim('{') {
		return p.fail(tensor, "%s is not a JSON object; the file is damaged", what)
	}
	seen := make(map[string]bool)
	for p.dec.More() {
		key, ok := p.token().(string)
		if !ok {
			return p.fail(tensor, "%s has a key that is not text; the file is damaged", what)
		}
		if seen[key] {
			return p.fail(tensor, "%s has the key %.80q twice; the file is ambiguous, write it again", what, key)
		}
		seen[key] = true
		if err := member(key); err != nil {
			return err
		}
	}
	p.token() // '}'
	return nil
}

// integers reads an array of non-negative integers.
func (p *parser) integers(tensor, what string) ([]uint64, error) {
	if p.token() != json.Delim('[') {
		return nil, p.fail(tensor, "%s is not an array; the file is damaged", what)
	}
	list := []uint64{}
	for p.dec.More() {
		t := p.token()
		number, ok := t.(json.Number)
		if !ok {
			return nil, p.fail(tensor, "%s holds something other than a number; the file is damaged", what)
		}
		v, err := strconv.ParseUint(number.String(), 10, 64)
		if err != nil {
			return nil, p.fail(tensor, "%s holds %.40s, want an integer from 0 to 2^64-1; the file is damaged", what, number)
		}
		list = append(list, v)
	}
	p.token() // ']'
	return list, nil
}

func (p *parser) file() (*File, []byteRange, error) {
	f := &File{}
	var ranges []byteRange
	err := p.object("", "the header", func(name string) error {
		if name == metadataKey {
			f.Metadata = make(map[string]string)
			return p.object("", metadataKey, func(key string) error {
				text, ok := p.token().(string)
				if !ok {
					return p.fail("", "%s[%.80q] is not text; write numbers and objects as text", metadataKey, key)
				}
				f.Metadata[key] = text
				return nil
			})
		}
		t, r, err := p.tensor(name)
		f.Tensors = append(f.Tensors, t)
		ranges = append(ranges, r)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return f, ranges, nil
}

// tensor reads what the header says of one tensor.
func (p *parser) tensor(name string) (t Tensor, r byteRange, err error) {
	t.Name = name
	fields := 0
	err = p.object(name, "its entry in the header", func(key string) error {
		fields++
		switch key {
		case "dtype":
			text, isText := p.token().(string)
			d, known := parseDType(text)
			if !isText || !known {
				return p.fail(name, "unknown dtype %.40q; use F16, BF16, F32, F64, I64, U64 or U8", text)
			}
			t.DType = d
		case "shape":
			dims, err := p.integers(name, key)
			if err != nil {
				return err
			}
			t.Shape = make([]int, len(dims))
			for i, d := range dims {
				if d > math.MaxInt {
					return p.fail(name, "shape %v overflows; the file is damaged", dims)
				}
				t.Shape[i] = int(d)
			}
		case "data_offsets":
			offsets, err := p.integers(name, key)
			if err != nil {
				return err
			}
			if len(offsets) != 2 {
				return p.fail(name, "data_offsets has %d entries, want begin and end; the file is damaged", len(offsets))
			}
			r = byteRange{begin: offsets[0], end: offsets[1], at: p.at()}
		default:
			return p.fail(name, "unknown key %.80q, want dtype, shape and data_offsets; the file is damaged or of a newer format", key)
		}
		return nil
	})
	if err == nil && fields != 3 {
		err = p.fail(name, "its entry in the header lacks dtype, shape or data_offsets; the file is damaged")
	}
	return t, r, err
}
