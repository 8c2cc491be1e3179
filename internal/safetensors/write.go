package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/seed-5f5774c8/neuralode/internal/atomicfile"
)

// Write writes a file with the tensors and, unless it is empty, the metadata.
// The same content always gives the same bytes: tensors of larger elements come
// first, so that all are aligned, and then in the order of their names. The
// header is padded with spaces so that the data begin at a multiple of 8 bytes.
//
// It refuses a name given twice or that is not UTF-8, and a tensor whose bytes
// do not fit its shape, before anything is written.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	sorted := slices.Clone(tensors)
	slices.SortStableFunc(sorted, func(s, t Tensor) int {
		return cmp.Or(cmp.Compare(t.DType.Size(), s.DType.Size()), strings.Compare(s.Name, t.Name))
	})
	header, err := encodeHeader(sorted, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("safetensors: writing the header: %w", err)
	}
	for _, t := range sorted {
		if _, err := w.Write(t.Data); err != nil {
			return fmt.Errorf("safetensors: writing tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// encodeHeader returns the header with its length in front.
func encodeHeader(tensors []Tensor, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, lengthSize))
	b.WriteByte('{')
	tooLong := func(n int) error {
		return fmt.Errorf("safetensors: the header takes at least %d bytes, above the limit of %d; write fewer tensors or less metadata to a file", n, maxHeader)
	}
	if len(metadata) > 0 {
		n := 0
		for k, v := range metadata {
			if n += len(k) + len(v); n > maxHeader {
				return nil, tooLong(n)
			}
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, fmt.Errorf("safetensors: metadata %q is not UTF-8; encode it as text first", k)
			}
		}
		fmt.Fprintf(&b, "%s:%s", quote(metadataKey), quote(metadata)) // keys come out sorted
	}
	seen := make(map[string]bool)
	offset := 0
	for _, t := range tensors {
		switch {
		case !utf8.ValidString(t.Name):
			return nil, fmt.Errorf("safetensors: the tensor name %q is not UTF-8; rename it", t.Name)
		case t.Name == metadataKey:
			return nil, fmt.Errorf("safetensors: %q cannot be a tensor's name; rename it", t.Name)
		case seen[t.Name]:
			return nil, fmt.Errorf("safetensors: two tensors are named %q; rename one", t.Name)
		}
		seen[t.Name] = true
		if err := t.check(); err != nil {
			return nil, err
		}
		if b.Len() > lengthSize+1 {
			b.WriteByte(',')
		}
		shape := t.Shape
		if shape == nil {
			shape = []int{} // a scalar, not null
		}
		end := offset + len(t.Data)
		fmt.Fprintf(&b, `%s:{"dtype":%s,"shape":%s,"data_offsets":[%d,%d]}`, quote(t.Name), quote(t.DType.String()), quote(shape), offset, end)
		offset = end
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	n := b.Len() - lengthSize
	if n > maxHeader {
		return nil, tooLong(n)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(n))
	return b.Bytes(), nil
}

// quote is v as JSON, without the escapes that encoding/json adds for HTML.
func quote(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("safetensors: a header value that JSON cannot hold") // text and integers always can
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// WriteFile writes a file as [Write] does, atomically, as [atomicfile.Write] does.
func WriteFile(path string, tensors []Tensor, metadata map[string]string) error {
	err := atomicfile.Write(path, func(w io.Writer) error { return Write(w, tensors, metadata) })
	if err != nil && !strings.HasPrefix(err.Error(), "safetensors: ") {
		return fmt.Errorf("safetensors: %w", err)
	}
	return err
}
