package eqxfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

const magic = "\x93NUMPY"

// The NumPy types that are read; bfloat16 has none of its own.
var dtypes = map[string]safetensors.DType{
	"<f2": safetensors.F16,
	"<f4": safetensors.F32,
	"<f8": safetensors.F64,
}

// File is the content of a file.
type File struct {
	// Hyperparameters is the line of JSON in front, nil if there is none.
	Hyperparameters map[string]any
	// Leaves are the arrays in their order, row-major; each Name is its place, "0",
	// "1" and so on, and Offset the byte where its values begin. They may share the
	// memory given to Read.
	Leaves []safetensors.Tensor
}

// Read parses a whole file. It fails, and says at which byte, if b is no such
// file or ends early, and for arrays of anything but little-endian float16,
// float32 and float64: jax.tree_util.tree_map(lambda x: x.astype("float32"), …)
// makes them that.
func Read(b []byte) (*File, error) {
	f := &File{}
	at := 0
	if bytes.HasPrefix(b, []byte("{")) {
		n := bytes.IndexByte(b, '\n')
		if n < 0 {
			return nil, fmt.Errorf("eqxfile: at byte 0: a line of JSON without an end; this is no file of equinox.tree_serialise_leaves")
		}
		if err := json.Unmarshal(b[:n], &f.Hyperparameters); err != nil {
			return nil, fmt.Errorf("eqxfile: the hyperparameters in the first line are not JSON: %w", err)
		}
		at = n + 1
	}
	for at < len(b) {
		leaf, end, err := array(b, at)
		if err != nil {
			return nil, fmt.Errorf("eqxfile: leaf %d at byte %d: %w", len(f.Leaves), at, err)
		}
		leaf.Name = strconv.Itoa(len(f.Leaves))
		f.Leaves = append(f.Leaves, leaf)
		at = end
	}
	if len(f.Leaves) == 0 {
		return nil, fmt.Errorf("eqxfile: the file holds no array; write it with equinox.tree_serialise_leaves")
	}
	return f, nil
}

// Both orders of the keys, and both spellings of a tuple, are Python.
var header = regexp.MustCompile(`^\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? ?\} *\n?$`)

// array reads the array at byte at of b, and returns where it ends.
func array(b []byte, at int) (t safetensors.Tensor, end int, err error) {
	rest := b[at:]
	if !bytes.HasPrefix(rest, []byte(magic)) {
		return t, 0, fmt.Errorf("it does not begin as a NumPy array; the file is damaged or not written by equinox.tree_serialise_leaves")
	}
	early := fmt.Errorf("it ends early; the file is truncated, fetch it again")
	if len(rest) < 12 {
		return t, 0, early
	}
	var n uint64 // of the header
	skip := 10
	switch major := rest[6]; major {
	case 1:
		n = uint64(binary.LittleEndian.Uint16(rest[8:]))
	case 2, 3:
		n = uint64(binary.LittleEndian.Uint32(rest[8:]))
		skip = 12
	default:
		return t, 0, fmt.Errorf("its version is %d, not 1 to 3; save it with numpy's default", major)
	}
	rest = rest[skip:]
	if n > uint64(len(rest)) {
		return t, 0, early
	}
	parts := header.FindSubmatch(rest[:n])
	if parts == nil {
		return t, 0, fmt.Errorf("its header %.120q is not read; the file is damaged", rest[:n])
	}
	rest = rest[n:]
	dtype, ok := dtypes[string(parts[1])]
	if !ok {
		return t, 0, fmt.Errorf("its type is %.20q, not one of float16 (<f2), float32 (<f4), float64 (<f8); convert it before it is written", parts[1])
	}
	t.DType = dtype
	t.Shape = []int{}
	size := uint64(dtype.Size())
	if text := strings.TrimSuffix(strings.ReplaceAll(string(parts[3]), " ", ""), ","); text != "" {
		for d := range strings.SplitSeq(text, ",") {
			v, err := strconv.ParseUint(d, 10, 31)
			if err != nil {
				return t, 0, fmt.Errorf("its shape (%.80s) is not read; the file is damaged", parts[3])
			}
			var hi uint64
			if hi, size = bits.Mul64(size, v); hi != 0 {
				return t, 0, early
			}
			t.Shape = append(t.Shape, int(v))
		}
	}
	if size > uint64(len(rest)) {
		return t, 0, early
	}
	t.Data = rest[:size:size]
	t.Offset = int64(len(b) - len(rest))
	if string(parts[2]) == "True" && len(t.Shape) > 1 {
		t.Data = rowMajor(t)
	}
	return t, len(b) - len(rest) + int(size), nil
}

// rowMajor is the data of t, whose first index runs fastest, with the last doing so.
func rowMajor(t safetensors.Tensor) []byte {
	out := make([]byte, 0, len(t.Data))
	width := t.DType.Size()
	index := make([]int, len(t.Shape))
	for len(out) < len(t.Data) {
		at := 0
		for i := range slices.Backward(index) {
			at = at*t.Shape[i] + index[i]
		}
		out = append(out, t.Data[at*width:(at+1)*width]...)
		for i := len(index) - 1; i >= 0; i-- {
			if index[i]++; index[i] < t.Shape[i] {
				break
			}
			index[i] = 0
		}
	}
	return out
}
