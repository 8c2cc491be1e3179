package torchfile

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

// want is a tensor of a file of testdata, which testdata/make.py wrote.
type want struct {
	name   string
	dtype  safetensors.DType
	shape  []int
	values []float64
}

// ramp is 0/8-1, 1/8-1, … plus add, as in make.py.
func ramp(n int, add float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(i)/8 - 1 + add
	}
	return v
}

// pick returns the elements of v at the places.
func pick(v []float64, places ...int) []float64 {
	var out []float64
	for _, i := range places {
		out = append(out, v[i])
	}
	return out
}

func read(t *testing.T, name string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compare(t *testing.T, got []safetensors.Tensor, wants []want) {
	t.Helper()
	if len(got) != len(wants) {
		t.Fatalf("%d tensors, want %d", len(got), len(wants))
	}
	for i, w := range wants {
		g := got[i]
		if g.Name != w.name || g.DType != w.dtype || !slices.Equal(g.Shape, w.shape) {
			t.Errorf("tensor %d is %q %v %v, want %q %v %v", i, g.Name, g.DType, g.Shape, w.name, w.dtype, w.shape)
			continue
		}
		values := make([]float64, g.Len())
		if err := safetensors.Floats(values, g); err != nil || !slices.Equal(values, w.values) {
			t.Errorf("%s: %v, error %v, want %v", w.name, values, err, w.values)
		}
	}
}

var stateDict = []want{
	{"0.weight", safetensors.F32, []int{3, 2}, ramp(6, 0)},
	{"0.bias", safetensors.F32, []int{3}, ramp(3, 1)},
	{"2.weight", safetensors.F32, []int{2, 3}, ramp(6, 2)},
	{"2.bias", safetensors.F32, []int{2}, ramp(2, 3)},
}

func TestRead(t *testing.T) {
	base := ramp(20, 0)
	var transposed []int
	for j := range 5 {
		for i := range 4 {
			transposed = append(transposed, 5*i+j)
		}
	}
	for name, wants := range map[string][]want{
		"state_dict.pt": stateDict,
		"checkpoint.pt": {
			{"types.f16", safetensors.F16, []int{3}, ramp(3, 0)},
			{"types.bf16", safetensors.BF16, []int{3}, ramp(3, 0)},
			{"types.f32", safetensors.F32, []int{3}, ramp(3, 0)},
			{"types.f64", safetensors.F64, []int{3}, ramp(3, 0)},
			{"views.0", safetensors.F32, []int{4, 5}, base},
			{"views.1", safetensors.F32, []int{5, 4}, pick(base, transposed...)},
			{"views.2", safetensors.F32, []int{2, 2}, pick(base, 6, 8, 11, 13)},
			{"views.3", safetensors.F32, []int{5}, base[10:15]},
			{"views.4", safetensors.F32, []int{4}, pick(base, 3, 8, 13, 18)},
			{"scalar", safetensors.F32, []int{}, []float64{0.5}},
			{"empty", safetensors.F32, []int{0, 3}, []float64{}},
			{"parameter", safetensors.F32, []int{2}, ramp(2, 0)},
			{"state.0.step", safetensors.F32, []int{}, []float64{7}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(read(t, name))
			if err != nil {
				t.Fatal(err)
			}
			compare(t, got, wants)
		})
	}
}

// repack writes state_dict.pt anew with some of its files changed.
func repack(t testing.TB, method uint16, change func(name string, data []byte) (string, []byte)) []byte {
	b, err := os.ReadFile("testdata/state_dict.pt")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		name, data := change(f.Name, data)
		if name == "" {
			continue
		}
		dst, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		dst.Write(data)
	}
	w.Close()
	return out.Bytes()
}

// withPickle is a file whose data.pkl is the one given.
func withPickle(t testing.TB, pickle string) []byte {
	return repack(t, zip.Store, func(name string, data []byte) (string, []byte) {
		if strings.HasSuffix(name, "/data.pkl") {
			data = []byte(pickle)
		}
		return name, data
	})
}

// tensorOf is the pickle of a tensor of storage 0, which has six elements.
func tensorOf(offset, size, stride string) string {
	return "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ" +
		offset + size + stride + "\x89NtR."
}

func int4(v int32) string {
	return "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(v)))
}

// long is an integer of 64 bits.
func long(v int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(v)))
}

func TestRead_Refuses(t *testing.T) {
	good := read(t, "state_dict.pt")
	replace := func(suffix, with string) func(string, []byte) (string, []byte) {
		return func(name string, data []byte) (string, []byte) {
			if strings.HasSuffix(name, suffix) {
				if with == "" {
					return "", nil
				}
				return name, []byte(with)
			}
			return name, data
		}
	}
	damaged := bytes.Clone(good)
	damaged[bytes.Index(damaged, []byte("\x00\x00\x80\xbf"))] ^= 1 // -1, the first weight
	const huge = 1 << 62
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"module", read(t, "module.pt"), `holds a "torch.nn.modules.container.Sequential", which is not read; save model.state_dict()`},
		{"integers", read(t, "integers.pt"), `"torch LongStorage" is no storage of floating-point numbers`},
		{"expanded", read(t, "expanded.pt"), "shape [3] repeats elements of its storage; save tensor.contiguous()"},
		{"legacy", read(t, "legacy.pt"), "format before PyTorch 1.6; load it in a newer PyTorch"},
		{"protocol 4", read(t, "protocol4.pt"), "protocol 4, not 2; save without the argument pickle_protocol"},
		{"sparse", read(t, "sparse.pt"), `"torch.serialization._get_layout", which is not read`},
		{"TorchScript", read(t, "script.pt"), "TorchScript archive; save model.state_dict()"},
		{"empty", nil, "no file of torch.save, or a damaged one"},
		{"text", []byte("t,x\n0,1\n"), "no file of torch.save, or a damaged one"},
		{"truncated", good[:len(good)-30], "no file of torch.save, or a damaged one"},
		{"a bit flipped", damaged, "checksum error; the file is damaged"},
		{"compressed", repack(t, zip.Deflate, func(n string, d []byte) (string, []byte) { return n, d }), "is compressed"},
		{"big-endian", repack(t, zip.Store, replace("/byteorder", "big")), `byte order is "big"`},
		{"no pickle", repack(t, zip.Store, replace("/data.pkl", "")), "holds no data.pkl"},
		{"no storage", repack(t, zip.Store, replace("/data/0", "")), `lacks "data/0"`},
		{"short storage", repack(t, zip.Store, replace("/data/0", "12345678")), `storage "0" has 8 bytes, not 6 elements of F32`},
		{"twice", repack(t, zip.Store, func(n string, d []byte) (string, []byte) {
			return strings.Replace(n, "data/1", "data/0", 1), d
		}), "twice"},
		{"a call", withPickle(t, "\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."), `at byte 21: the file holds a "os.system", which is not read`},
		{"no call of a class", withPickle(t, "\x80\x02K\x01)R."), "a call of what is no class"},
		{"opcode", withPickle(t, "\x80\x02I1\n."), "opcode 0x49"},
		{"empty pickle", withPickle(t, ""), "at byte 0: it ends early"},
		{"no stop", withPickle(t, "\x80\x02}"), "ends early"},
		{"empty stack", withPickle(t, "\x80\x02."), "takes more than there is"},
		{"no mark", withPickle(t, "\x80\x02}u."), "a mark is missing"},
		{"odd items", withPickle(t, "\x80\x02}(K\x01u."), "a key without a value"},
		{"memo", withPickle(t, "\x80\x02h\x01."), "refers to object 1, which is missing"},
		{"after the end", withPickle(t, "\x80\x02}.}"), "something follows its end"},
		{"a class itself", withPickle(t, "\x80\x02ctorch\nFloatStorage\n."), "neither a tensor nor a number"},
		{"a mark as a value", withPickle(t, "\x80\x02(."), "neither a tensor nor a number"},
		{"a list in itself", withPickle(t, "\x80\x02]q\x00h\x00a."), "too deep or too many"},
		{"many lists", withPickle(t, "\x80\x02(]q\x00"+strings.Repeat("](h\x00h\x00h\x00h\x00eq\x00", 30)+"t."), "too deep or too many"},
		{"long integer", withPickle(t, "\x80\x02\x8a\x09123456789."), "an integer beyond 64 bits"},
		{"key", withPickle(t, "\x80\x02}NK\x01s."), "neither text nor an integer"},
		{"offset beyond", withPickle(t, tensorOf(int4(1), int4(6)+"\x85", int4(1)+"\x85")), "shape [6] reaches beyond its storage of 6"},
		{"negative offset", withPickle(t, tensorOf(int4(-1), int4(2)+"\x85", int4(1)+"\x85")), "reaches beyond"},
		{"negative size", withPickle(t, tensorOf(int4(0), int4(-2)+"\x85", int4(1)+"\x85")), "malformed arguments"},
		{"huge size", withPickle(t, tensorOf(int4(0), long(huge)+long(huge)+"\x86", int4(0)+int4(0)+"\x86")), "reaches beyond"},
		{"huge stride", withPickle(t, tensorOf(int4(0), int4(5)+"\x85", long(huge)+"\x85")), "reaches beyond"},
		{"strides that wrap", withPickle(t, tensorOf(int4(0), int4(3)+int4(3)+"\x86", long(1<<62)+long(1<<62)+"\x86")), "reaches beyond"},
		{"other ranks", withPickle(t, tensorOf(int4(0), int4(2)+"\x85", ")")), "malformed arguments"},
	} {
		got, err := Read(c.file)
		if err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

// What Write writes, Read reads; that PyTorch reads it, bench/peers/interop.py shows.
func TestWrite(t *testing.T) {
	var all []safetensors.Tensor
	for _, name := range []string{"state_dict.pt", "checkpoint.pt"} {
		tensors, err := Read(read(t, name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tensors...)
	}
	var a, b bytes.Buffer
	if err := Write(&a, all); err != nil {
		t.Fatal(err)
	}
	if err := Write(&b, all); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Errorf("the same tensors give other bytes, error %v", err)
	}
	got, err := Read(a.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range all {
		g := got[i]
		if g.Name != w.Name || g.DType != w.DType || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("read back %v, wrote %v", g, w)
		}
	}
	if err := Write(io.Discard, []safetensors.Tensor{all[0], all[0]}); err == nil || !strings.Contains(err.Error(), "two tensors are named") {
		t.Errorf("names given twice: %v", err)
	}
	if err := Write(io.Discard, []safetensors.Tensor{safetensors.New("n", []int{1}, []int64{1})}); err == nil || !strings.Contains(err.Error(), "is I64") {
		t.Errorf("integers: %v", err)
	}
}

// Whatever the pickle, Read returns tensors that hold their shapes, or an error.
func FuzzRead(f *testing.F) {
	names, err := filepath.Glob("testdata/*.pt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			continue
		}
		r, err := z.File[0].Open()
		if err != nil {
			f.Fatal(err)
		}
		pickle, err := io.ReadAll(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pickle)
	}
	f.Fuzz(func(t *testing.T, pickle []byte) {
		tensors, err := Read(withPickle(t, string(pickle)))
		if err != nil && tensors != nil {
			t.Error("tensors and an error")
		}
		for _, x := range tensors {
			if len(x.Data) != x.Len()*x.DType.Size() {
				t.Errorf("%v holds %d bytes", x, len(x.Data))
			}
		}
	})
}
