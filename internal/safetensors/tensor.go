package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// DType is the type of a tensor's elements.
type DType uint8

// The types that this package reads and writes; the format knows more.
const (
	F32  DType = iota // float32
	F64               // float64
	I64               // int64
	U64               // uint64
	U8                // uint8
	F16               // IEEE 754 binary16; read by Floats alone
	BF16              // bfloat16, the upper half of a float32; read by Floats alone
)

var dtypeNames = [...]string{F32: "F32", F64: "F64", I64: "I64", U64: "U64", U8: "U8", F16: "F16", BF16: "BF16"}

var dtypeSizes = [...]int{F32: 4, F64: 8, I64: 8, U64: 8, U8: 1, F16: 2, BF16: 2}

// String is the name in a file's header.
func (d DType) String() string {
	if int(d) < len(dtypeNames) {
		return dtypeNames[d]
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// Size is the number of bytes of an element, 0 for an unknown type.
func (d DType) Size() int {
	if int(d) < len(dtypeSizes) {
		return dtypeSizes[d]
	}
	return 0
}

func parseDType(s string) (DType, bool) {
	for d, name := range dtypeNames {
		if s == name {
			return DType(d), true
		}
	}
	return 0, false
}

// Element is a Go type that a tensor can hold.
type Element interface {
	float32 | float64 | int64 | uint64 | uint8
}

func dtypeOf[E Element]() DType {
	var e E
	switch any(e).(type) {
	case float32:
		return F32
	case float64:
		return F64
	case int64:
		return I64
	case uint64:
		return U64
	default:
		return U8
	}
}

// Tensor is a named array. Data holds its values little-endian and row-major; an
// empty Shape is a scalar, which has one element.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
	// Offset is where Data begins in the file that [Read] took it from, in bytes.
	// Errors name it. Write ignores it.
	Offset int64
}

// New makes a tensor that holds a copy of values. The product of shape must be
// len(values).
func New[E Element](name string, shape []int, values []E) Tensor {
	n, ok := count(shape)
	if !ok || n != uint64(len(values)) {
		panic("safetensors: New with a shape that does not hold its values")
	}
	d := dtypeOf[E]()
	data, err := binary.Append(make([]byte, 0, len(values)*d.Size()), binary.LittleEndian, values)
	if err != nil {
		panic("safetensors: New of a type without a fixed size") // no Element is one
	}
	return Tensor{Name: name, DType: d, Shape: append([]int{}, shape...), Data: data}
}

// Len is the number of elements that Shape holds.
func (t Tensor) Len() int {
	n, ok := count(t.Shape)
	if !ok || n > math.MaxInt {
		panic("safetensors: Len of a shape that overflows")
	}
	return int(n)
}

// Values returns a copy of t's values. It fails unless t is of type E exactly.
func Values[E Element](t Tensor) ([]E, error) {
	want := dtypeOf[E]()
	if err := t.check(); err != nil {
		return nil, err
	}
	if t.DType != want {
		return nil, t.errorf(0, "is %s, want %s; convert it where the file was written", t.DType, want)
	}
	values := make([]E, t.Len())
	if _, err := binary.Decode(t.Data, binary.LittleEndian, values); err != nil {
		return nil, t.errorf(0, "%v", err)
	}
	return values, nil
}

// Floats copies t's values to dst, which has t.Len() elements. It takes F16, BF16,
// F32 and F64, rounding to T, and refuses any other type, NaN and infinity, and a
// value that is too large for T; dst is then partly written.
func Floats[T float32 | float64](dst []T, t Tensor) error {
	if err := t.check(); err != nil {
		return err
	}
	if len(dst) != t.Len() {
		panic("safetensors: Floats into a slice of the wrong length")
	}
	var at func(i int) float64
	switch t.DType {
	case F32:
		at = func(i int) float64 {
			return float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:])))
		}
	case F64:
		at = func(i int) float64 {
			return math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:]))
		}
	case F16:
		at = func(i int) float64 { return half(binary.LittleEndian.Uint16(t.Data[2*i:])) }
	case BF16:
		at = func(i int) float64 {
			return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*i:])) << 16))
		}
	default:
		return t.errorf(0, "is %s, want F16, BF16, F32 or F64; convert it where the file was written", t.DType)
	}
	for i := range dst {
		x := at(i)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return t.errorf(i*t.DType.Size(), "element %d is %v; the run that wrote the file had diverged, use an earlier one", i, x)
		}
		dst[i] = T(x)
		if math.IsInf(float64(dst[i]), 0) {
			return t.errorf(i*t.DType.Size(), "element %d is %v, beyond the range of float32; load the file as float64", i, x)
		}
	}
	return nil
}

// half is the value of an IEEE 754 binary16.
func half(bits uint16) float64 {
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	var x float64
	switch exponent {
	case 0: // subnormal
		x = math.Ldexp(fraction, -24)
	case 31:
		if x = math.Inf(1); fraction != 0 {
			x = math.NaN()
		}
	default:
		x = math.Ldexp(1024+fraction, exponent-25)
	}
	if bits>>15 != 0 {
		x = -x
	}
	return x
}

// check tells whether type, shape and bytes of t fit together.
func (t Tensor) check() error {
	size := t.DType.Size()
	if size == 0 {
		return t.errorf(0, "has unknown type %s; use one of the constants", t.DType)
	}
	n, ok := count(t.Shape)
	hi, want := bits.Mul64(n, uint64(size))
	if !ok || hi != 0 {
		return t.errorf(0, "has shape %v, which overflows or is negative; give the shape of its values", t.Shape)
	}
	if want != uint64(len(t.Data)) {
		return t.errorf(0, "has %d bytes, but %s of shape %v takes %d; give the shape of its values", len(t.Data), t.DType, t.Shape, want)
	}
	return nil
}

// errorf makes an error about the byte at position i of t's data.
func (t Tensor) errorf(i int, format string, args ...any) error {
	return &FormatError{Offset: t.Offset + int64(i), Tensor: t.Name, Text: fmt.Sprintf(format, args...)}
}

// count multiplies the dimensions of a shape; not ok if one is negative or the
// product overflows.
func count(shape []int) (n uint64, ok bool) {
	n, ok = 1, true
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		hi, lo := bits.Mul64(n, uint64(d))
		ok = ok && hi == 0
		n = lo
	}
	if slices.Contains(shape, 0) {
		return 0, true
	}
	return n, ok
}

// FormatError says what is wrong with a file, and where.
type FormatError struct {
	Offset int64  // bytes from the start of the file
	Tensor string // the tensor it is about, or empty
	Text   string // what is wrong and what to do
}

func (e *FormatError) Error() string {
	var b strings.Builder
	b.WriteString("safetensors: ")
	if e.Tensor != "" {
		fmt.Fprintf(&b, "tensor %.80q ", e.Tensor)
	}
	fmt.Fprintf(&b, "at byte %d: %s", e.Offset, e.Text)
	return b.String()
}
