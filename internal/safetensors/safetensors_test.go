package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// raw makes a file of any header and data.
func raw(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	return append(b, make([]byte, data)...)
}

func TestRead_Refuses(t *testing.T) {
	length := func(n uint64, rest string) []byte {
		return append(binary.LittleEndian.AppendUint64(nil, n), rest...)
	}
	entry := func(dtype, shape, offsets string) string {
		return fmt.Sprintf(`{"a":{"dtype":%s,"shape":%s,"data_offsets":%s}}`, dtype, shape, offsets)
	}
	const two = `{"a":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]},"b":{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}}`
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "at byte 8: the file has 0 bytes, too few"},
		{"7 bytes", make([]byte, 7), "the file has 7 bytes, too few"},
		{"no header", make([]byte, 8), "does not begin with '{'"},
		{"header beyond file", length(100, "{}"), "the header's length is 100, but only 2 bytes follow; the file is truncated"},
		{"header above limit", length(100_000_001, "{}"), "length 100000001 is above the limit of 100000000"},
		{"header length -1", length(math.MaxUint64, "{}"), "length 18446744073709551615 is above the limit"},
		{"zip file", []byte("PK\x03\x04 and more of it"), "above the limit"},
		{"leading space", raw(" {}", 0), "does not begin with '{'"},
		{"array", raw("[]", 0), "does not begin with '{'"},
		{"UTF-8", raw("{\"a\xff\":1}", 0), "at byte 11: the header is not valid UTF-8"},
		{"unfinished JSON", raw(`{"a":`, 0), "not valid JSON (unexpected end"},
		{"comma", raw(`{"a":1,}`, 0), "at byte 16: the header is not valid JSON"},
		{"two objects", raw(`{}{}`, 0), "not valid JSON"},
		{"padding of zeros", raw("{}\x00\x00", 0), "not valid JSON"},
		{"deep", raw(`{"a":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)+"}", 0), "exceeded max depth"},
		{"tensor is a number", raw(`{"a":1}`, 0), `tensor "a" at byte 14: its entry in the header is not a JSON object`},
		{"tensor is null", raw(`{"a":null}`, 0), "not a JSON object"},
		{"metadata is text", raw(`{"__metadata__":"x"}`, 0), "__metadata__ is not a JSON object"},
		{"metadata is null", raw(`{"__metadata__":null}`, 0), "__metadata__ is not a JSON object"},
		{"metadata number", raw(`{"__metadata__":{"k":1}}`, 0), `__metadata__["k"] is not text`},
		{"metadata object", raw(`{"__metadata__":{"k":{}}}`, 0), `__metadata__["k"] is not text`},
		{"metadata key twice", raw(`{"__metadata__":{"k":"1","k":"2"}}`, 0), `__metadata__ has the key "k" twice`},
		{"metadata twice", raw(`{"__metadata__":{},"__metadata__":{}}`, 0), `the header has the key "__metadata__" twice`},
		{"tensor twice", raw(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0061":{}}`, 0), `the header has the key "a" twice`},
		{"field twice", raw(`{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), `tensor "a" at byte 34: its entry in the header has the key "dtype" twice`},
		{"unknown field", raw(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":0}}`, 0), `unknown key "x"`},
		{"field in capitals", raw(`{"a":{"DType":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), `unknown key "DType"`},
		{"no dtype", raw(`{"a":{"shape":[0],"data_offsets":[0,0]}}`, 0), "lacks dtype, shape or data_offsets"},
		{"empty tensor", raw(`{"a":{}}`, 0), "lacks dtype, shape or data_offsets"},
		{"unknown dtype", raw(entry(`"F8_E4M3"`, "[0]", "[0,0]"), 0), `tensor "a" at byte 31: unknown dtype "F8_E4M3"; use F16, BF16, F32, F64, I64, U64 or U8`},
		{"dtype number", raw(entry("1", "[0]", "[0,0]"), 0), "unknown dtype"},
		{"dtype empty", raw(entry(`""`, "[0]", "[0,0]"), 0), "unknown dtype"},
		{"shape text", raw(entry(`"U8"`, `"3"`, "[0,3]"), 3), "shape is not an array"},
		{"shape null", raw(entry(`"U8"`, `null`, "[0,3]"), 3), "shape is not an array"},
		{"shape negative", raw(entry(`"U8"`, `[-3]`, "[0,3]"), 3), "shape holds -3, want an integer"},
		{"shape negative twice", raw(entry(`"U8"`, `[-3,-1]`, "[0,3]"), 3), "shape holds -3, want an integer"},
		{"shape fraction", raw(entry(`"U8"`, `[3.0]`, "[0,3]"), 3), "shape holds 3.0, want an integer"},
		{"shape exponent", raw(entry(`"U8"`, `[3e0]`, "[0,3]"), 3), "shape holds 3e0, want an integer"},
		{"shape of text", raw(entry(`"U8"`, `["3"]`, "[0,3]"), 3), "shape holds something other than a number"},
		{"shape nested", raw(entry(`"U8"`, `[[3]]`, "[0,3]"), 3), "shape holds something other than a number"},
		{"shape above uint64", raw(entry(`"U8"`, `[18446744073709551616]`, "[0,3]"), 3), "want an integer from 0 to 2^64-1"},
		{"shape above int", raw(entry(`"U8"`, `[18446744073709551615]`, "[0,3]"), 3), "overflows"},
		{"shape product wraps to 0", raw(entry(`"U8"`, `[4294967296,4294967296]`, "[0,0]"), 0), "overflows"},
		{"bytes wrap to 0", raw(entry(`"F64"`, `[2305843009213693952]`, "[0,0]"), 0), "overflows"},
		{"too few bytes", raw(entry(`"F32"`, `[2]`, "[0,7]"), 7), "F32 of shape [2] takes 8 bytes, but data_offsets [0, 7] hold 7"},
		{"too many bytes", raw(entry(`"F32"`, `[2]`, "[0,9]"), 9), "takes 8 bytes"},
		{"scalar without bytes", raw(entry(`"F32"`, `[]`, "[0,0]"), 0), "F32 of shape [] takes 4 bytes"},
		{"one offset", raw(entry(`"U8"`, `[0]`, "[0]"), 0), "data_offsets has 1 entries"},
		{"three offsets", raw(entry(`"U8"`, `[0]`, "[0,0,0]"), 0), "data_offsets has 3 entries"},
		{"offsets backwards", raw(entry(`"U8"`, `[1]`, "[1,0]"), 1), "data_offsets [1, 0] run backwards"},
		{"offset negative", raw(entry(`"U8"`, `[1]`, "[-1,0]"), 1), "data_offsets holds -1"},
		{"offset beyond file", raw(entry(`"U8"`, `[5]`, "[0,5]"), 4), "data_offsets [0, 5] reach beyond the 4 bytes of data; the file is truncated"},
		{"offset far beyond", raw(entry(`"U8"`, `[1]`, "[18446744073709551614,18446744073709551615]"), 4), "reach beyond"},
		{"overlap", raw(fmt.Sprintf(two, 0, 8, 4, 12), 12), `tensor "b" at byte 114: data_offsets [4, 12] overlap the tensor that ends at 8`},
		{"same place", raw(fmt.Sprintf(two, 0, 8, 0, 8), 8), "overlap"},
		{"hole", raw(fmt.Sprintf(two, 0, 8, 12, 20), 20), "data_offsets [12, 20] leave a hole of 4 bytes"},
		{"hole at the start", raw(fmt.Sprintf(two, 12, 20, 4, 12), 20), "leave a hole of 4 bytes"},
		{"trailing byte", raw(fmt.Sprintf(two, 0, 8, 8, 16), 17), "1 bytes follow the last tensor"},
		{"data without tensors", raw("{}", 3), "at byte 10: 3 bytes follow the last tensor"},
		{"empty tensor far out", raw(entry(`"U8"`, `[0]`, "[3,3]"), 3), "leave a hole"},
	} {
		f, err := Read(c.file)
		var fe *FormatError
		if f != nil || !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "safetensors: ") {
			t.Errorf("%s: %v, error %v, want %q", c.name, f, err, c.want)
			continue
		}
		if fe.Offset < 0 || fe.Offset > int64(len(c.file))+lengthSize {
			t.Errorf("%s: offset %d in a file of %d bytes", c.name, fe.Offset, len(c.file))
		}
	}
}

func TestRead_Accepts(t *testing.T) {
	for _, c := range []struct {
		name string
		file []byte
		want []string // name, type, shape, place in the data
	}{
		{"nothing", raw("{}", 0), nil},
		{"padded", raw("{}      ", 0), nil},
		{"empty metadata", raw(`{"__metadata__":{}}`, 0), nil},
		{"scalar", raw(`{"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}`, 8), []string{"a F64 [] +0"}},
		{"white space, any order", raw("{ \"b\" :\n{\"data_offsets\": [4, 8],\t\"shape\": [1], \"dtype\": \"F32\"}, \"a\":{\"shape\":[4],\"data_offsets\":[0,4],\"dtype\":\"U8\"}}", 8),
			[]string{"a U8 [4] +0", "b F32 [1] +4"}},
		{"empty tensors", raw(`{"a":{"dtype":"I64","shape":[3,0],"data_offsets":[1,1]},"b":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]},"c":{"dtype":"U64","shape":[0],"data_offsets":[0,0]}}`, 1),
			[]string{"c U64 [0] +0", "b U8 [1 1] +0", "a I64 [3 0] +1"}},
		{"empty name", raw(`{"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), []string{" U8 [0] +0"}},
	} {
		f, err := Read(c.file)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		start := lengthSize + int64(binary.LittleEndian.Uint64(c.file))
		for _, x := range f.Tensors {
			got = append(got, fmt.Sprint(x.Name, " ", x.DType, " ", x.Shape, " +", x.Offset-start))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestWriteRead_RoundTrip(t *testing.T) {
	f32 := []float32{1.5, float32(math.Inf(1)), 0, -1e-45, 3, 4}
	f64 := []float64{math.Pi, math.MaxFloat64}
	i64 := []int64{math.MinInt64, math.MaxInt64}
	u64 := []uint64{math.MaxUint64}
	u8 := []uint8{0, 255, 7}
	tensors := []Tensor{
		New("z/u8", []int{3}, u8),
		New("f32", []int{2, 3}, f32),
		New("f64", []int{2, 1}, f64),
		New("日本 \"q\" <&>", nil, u64),
		New("i64", []int{2}, i64),
		New("none", []int{0, 5}, []float32{}),
	}
	meta := map[string]string{"b": "two\nlines", "a": "é<>&\"", "": ""}
	var b bytes.Buffer
	if err := Write(&b, tensors, meta); err != nil {
		t.Fatal(err)
	}
	f, err := Read(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(f.Metadata) != fmt.Sprint(meta) || len(f.Tensors) != len(tensors) {
		t.Errorf("read %v", f)
	}
	header := binary.LittleEndian.Uint64(b.Bytes())
	if header%8 != 0 {
		t.Errorf("the header's length %d is not a multiple of 8", header)
	}
	for _, want := range tensors {
		got, ok := f.Tensor(want.Name)
		if !ok || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("%q: read %v, %v, wrote %v", want.Name, ok, got, want)
		}
		if got.Offset%int64(got.DType.Size()) != 0 {
			t.Errorf("%q is not aligned: byte %d", want.Name, got.Offset)
		}
		if !bytes.Equal(b.Bytes()[got.Offset:got.Offset+int64(len(got.Data))], got.Data) {
			t.Errorf("%q is not at byte %d", want.Name, got.Offset)
		}
	}
	if _, ok := f.Tensor("other"); ok {
		t.Error("found a tensor that is not there")
	}
	values(t, f, "f32", f32)
	values(t, f, "f64", f64)
	values(t, f, "i64", i64)
	values(t, f, "日本 \"q\" <&>", u64)
	values(t, f, "z/u8", u8)

	// The order given does not matter.
	slices.Reverse(tensors)
	var c bytes.Buffer
	if err := Write(&c, tensors, meta); err != nil || !bytes.Equal(b.Bytes(), c.Bytes()) {
		t.Errorf("the order of tensors changes the file (%v)", err)
	}
}

func values[E Element](t *testing.T, f *File, name string, want []E) {
	t.Helper()
	x, _ := f.Tensor(name)
	if got, err := Values[E](x); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q holds %v, %v, want %v", name, got, err, want)
	}
	if dtypeOf[E]() == U8 {
		if _, err := Values[int64](x); err == nil || !strings.Contains(err.Error(), "is U8, want I64") {
			t.Errorf("wrong type: %v", err)
		}
	} else if _, err := Values[uint8](x); err == nil {
		t.Error("wrong type read")
	}
}

// The bytes of a small file, written out by hand from the specification.
func TestWrite_Bytes(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, []Tensor{New("x", []int{2}, []float32{1, -2})}, map[string]string{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	header := `{"__metadata__":{"k":"v"},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`
	for len(header)%8 != 0 {
		header += " "
	}
	want := append(raw(header, 0), 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0)
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("wrote %q, want %q", b.Bytes(), want)
	}
}

func TestWrite_Refuses(t *testing.T) {
	x := New("x", []int{1}, []uint8{1})
	for _, c := range []struct {
		tensors []Tensor
		meta    map[string]string
		want    string
	}{
		{[]Tensor{x, x}, nil, `two tensors are named "x"; rename one`},
		{[]Tensor{{Name: "a\xff", DType: U8, Shape: []int{0}}}, nil, "is not UTF-8; rename it"},
		{[]Tensor{{Name: "__metadata__", DType: U8, Shape: []int{0}}}, nil, "cannot be a tensor's name"},
		{[]Tensor{{Name: "a", DType: 77, Shape: []int{0}}}, nil, `tensor "a" at byte 0: has unknown type DType(77)`},
		{[]Tensor{{Name: "a", DType: F32, Shape: []int{2}, Data: make([]byte, 7)}}, nil, "has 7 bytes, but F32 of shape [2] takes 8"},
		{[]Tensor{{Name: "a", DType: U8, Shape: []int{-1, -1}, Data: make([]byte, 1)}}, nil, "overflows or is negative"},
		{[]Tensor{{Name: "a", DType: U8, Shape: []int{0, -1}}}, nil, "overflows or is negative"},
		{[]Tensor{{Name: "a", DType: U8, Shape: []int{math.MaxInt, math.MaxInt}}}, nil, "overflows or is negative"},
		{nil, map[string]string{"k": "\xff"}, `metadata "k" is not UTF-8`},
		{nil, map[string]string{"k": strings.Repeat("x", maxHeader)}, "above the limit of 100000000"},
	} {
		var b bytes.Buffer
		err := Write(&b, c.tensors, c.meta)
		if err == nil || !strings.Contains(err.Error(), c.want) || b.Len() != 0 {
			t.Errorf("error %v and %d bytes, want %q", err, b.Len(), c.want)
		}
	}
	broken := errors.New("disk full")
	for n := range 2 {
		if err := Write(&limited{n: n, err: broken}, []Tensor{x}, nil); !errors.Is(err, broken) {
			t.Errorf("error %v when write %d fails", err, n)
		}
	}
}

// limited fails after n writes.
type limited struct {
	n   int
	err error
}

func (l *limited) Write(b []byte) (int, error) {
	if l.n == 0 {
		return 0, l.err
	}
	l.n--
	return len(b), nil
}

var _ io.Writer = (*limited)(nil)

func TestNew_PanicsOnWrongShape(t *testing.T) {
	for _, shape := range [][]int{nil, {3}, {-2}, {-1, -2}, {math.MaxInt, math.MaxInt, 2}} {
		func() {
			defer func() {
				if r := recover(); r != "safetensors: New with a shape that does not hold its values" {
					t.Errorf("%v: recovered %v", shape, r)
				}
			}()
			New("x", shape, []float32{1, 2})
		}()
	}
}

func TestFloats(t *testing.T) {
	f64 := func(v ...float64) Tensor {
		x := New("w", []int{len(v)}, v)
		x.Offset = 1000
		return x
	}
	d32, d64 := make([]float32, 2), make([]float64, 2)
	if err := Floats(d32, f64(0.1, -math.MaxFloat32)); err != nil || d32[0] != 0.1 || d32[1] != -math.MaxFloat32 {
		t.Errorf("%v, %v", d32, err)
	}
	if err := Floats(d64, New("w", []int{2}, []float32{0.1, 1e-45})); err != nil || d64[0] != float64(float32(0.1)) || d64[1] != float64(float32(1e-45)) {
		t.Errorf("%v, %v", d64, err)
	}
	// Just above MaxFloat32 rounds down to it; half an ulp above does not.
	if err := Floats(d32, f64(math.MaxFloat32*(1+1e-10), 0)); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		x    Tensor
		want string
	}{
		{f64(0, 1e39), `tensor "w" at byte 1008: element 1 is 1e+39, beyond the range of float32; load the file as float64`},
		{f64(math.NaN(), 0), "at byte 1000: element 0 is NaN"},
		{New("w", []int{2}, []float32{0, float32(math.Inf(-1))}), "at byte 4: element 1 is -Inf"},
		{New("w", []int{2}, []uint8{0, 0}), "is U8, want F16, BF16, F32 or F64"},
		{Tensor{Name: "w", DType: F32, Shape: []int{2}, Data: make([]byte, 9)}, "has 9 bytes"},
	} {
		if err := Floats(d32, c.x); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}

func TestWriteFile_Atomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.safetensors")
	x := New("x", []int{1}, []uint8{1})
	if err := WriteFile(path, []Tensor{x}, nil); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// An error leaves the old file and nothing else.
	if err := WriteFile(path, []Tensor{x, x}, nil); err == nil {
		t.Error("two tensors of one name were written")
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, old) {
		t.Errorf("the old file was damaged (%v)", err)
	}
	// A directory in the way: the rename fails.
	blocked := filepath.Join(dir, "d")
	if err := os.MkdirAll(filepath.Join(blocked, "inside"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(blocked, []Tensor{x}, nil); err == nil {
		t.Error("a directory was replaced")
	}
	// Success replaces it.
	if err := WriteFile(path, []Tensor{New("y", []int{1}, []uint8{1})}, nil); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(path); err != nil || bytes.Equal(now, old) {
		t.Errorf("the old file is still there (%v)", err)
	}
	names := func() (list []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	if got := names(); !slices.Equal(got, []string{"d", "f.safetensors"}) {
		t.Errorf("the directory holds %v", got)
	}
	if runtime.GOOS == "windows" {
		return // links need a privilege there
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("f.safetensors", link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, []Tensor{x}, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced (%v)", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, old) {
		t.Errorf("the link's target was not written (%v)", err)
	}
}

// checkRead checks what must hold of any bytes: an error and no file, or a file
// whose tensors tile the data and that survives being written again.
func checkRead(t *testing.T, b []byte) {
	f, err := Read(b)
	if err != nil {
		var fe *FormatError
		if f != nil || !errors.As(err, &fe) {
			t.Fatalf("%v with error %v", f, err)
		}
		return
	}
	at := int64(lengthSize) + int64(binary.LittleEndian.Uint64(b))
	for _, x := range f.Tensors {
		if x.Offset != at || x.Len()*x.DType.Size() != len(x.Data) {
			t.Fatalf("%q: %d bytes at %d, want them at %d", x.Name, len(x.Data), x.Offset, at)
		}
		at += int64(len(x.Data))
	}
	if at != int64(len(b)) {
		t.Fatalf("the tensors end at %d of %d bytes", at, len(b))
	}
	var c, d bytes.Buffer
	if err := Write(&c, f.Tensors, f.Metadata); err != nil {
		t.Fatal(err)
	}
	g, err := Read(c.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(&d, g.Tensors, g.Metadata); err != nil || !bytes.Equal(c.Bytes(), d.Bytes()) {
		t.Fatalf("a second round trip changes the file (%v)", err)
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := Write(&b, []Tensor{
		New("w", []int{2, 2}, []float32{1, 2, 3, 4}), New("b", []int{1}, []float64{1}), New("e", []int{0}, []int64{}),
	}, map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:b.Len()-1])
	f.Add(raw(`{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2))
	f.Add(raw(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0))
	f.Add(raw("{}", 1))
	f.Fuzz(func(t *testing.T, b []byte) { checkRead(t, b) })
}

// Every float16 and bfloat16 that is a number reads as that number: the bits of
// one and those of the float64 are put together here in another way.
func TestFloats_HalfPrecision(t *testing.T) {
	var dst [1]float64
	for bits := range 1 << 16 {
		data := binary.LittleEndian.AppendUint16(nil, uint16(bits))
		sign := float64(1 - 2*(bits>>15))
		for _, c := range []struct {
			dtype              DType
			exponent, mantissa int // bits of each
		}{{F16, 5, 10}, {BF16, 8, 7}} {
			err := Floats(dst[:], Tensor{Name: "h", DType: c.dtype, Shape: []int{1}, Data: data})
			e := bits >> c.mantissa & (1<<c.exponent - 1)
			if e == 1<<c.exponent-1 {
				if err == nil {
					t.Fatalf("%v %04x: %v, want an error", c.dtype, bits, dst[0])
				}
				continue
			}
			m := float64(bits&(1<<c.mantissa-1)) / float64(int(1)<<c.mantissa)
			if e > 0 {
				m++
			}
			want := sign * m * math.Pow(2, float64(max(e, 1)-(1<<(c.exponent-1)-1)))
			if err != nil || dst[0] != want {
				t.Fatalf("%v %04x: %v, error %v, want %v", c.dtype, bits, dst[0], err, want)
			}
		}
	}
}
