package eqxfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

type want struct {
	dtype  safetensors.DType
	shape  []int
	values []float64
}

// ramp is 0/8-1, 1/8-1, … plus add, as in testdata/make.py.
func ramp(n int, add float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(i)/8 - 1 + add
	}
	return v
}

// The leaves of the MLP 2-3-3-2 of testdata/make.py.
var mlp = []want{
	{safetensors.F32, []int{3, 2}, ramp(6, 0)}, {safetensors.F32, []int{3}, ramp(3, 1)},
	{safetensors.F32, []int{3, 3}, ramp(9, 2)}, {safetensors.F32, []int{3}, ramp(3, 3)},
	{safetensors.F32, []int{2, 3}, ramp(6, 4)}, {safetensors.F32, []int{2}, ramp(2, 5)},
}

func read(t testing.TB, name string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name  string
		wants []want
	}{
		{"mlp.eqx", mlp},
		{"hyper.eqx", mlp},
		{"func.eqx", append([]want{{safetensors.F32, []int{}, []float64{0.5}}}, mlp...)},
		{"arrays.eqx", []want{
			{safetensors.F32, []int{2, 3}, ramp(6, 0)},
			{safetensors.F64, []int{2, 2}, ramp(4, 0)},
			{safetensors.F16, []int{3}, ramp(3, 0)},
			{safetensors.F32, []int{1, 2, 2}, ramp(4, 0)},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := read(t, c.name)
			f, err := Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Leaves) != len(c.wants) {
				t.Fatalf("%d leaves, want %d", len(f.Leaves), len(c.wants))
			}
			for i, w := range c.wants {
				g := f.Leaves[i]
				values := make([]float64, g.Len())
				err := safetensors.Floats(values, g)
				if g.Name != fmt.Sprint(i) || g.DType != w.dtype || !slices.Equal(g.Shape, w.shape) || err != nil || !slices.Equal(values, w.values) {
					t.Errorf("leaf %d is %q %v %v %v, error %v, want %v", i, g.Name, g.DType, g.Shape, values, err, w)
				}
			}
			if has := c.name == "hyper.eqx"; has != (f.Hyperparameters["activation"] == "tanh") {
				t.Errorf("hyperparameters %v", f.Hyperparameters)
			}
			if c.name == "mlp.eqx" || c.name == "func.eqx" {
				var out bytes.Buffer
				if err := Write(&out, f.Leaves); err != nil || !bytes.Equal(out.Bytes(), b) {
					t.Errorf("written again, it has other bytes, error %v", err)
				}
			}
		})
	}
}

func TestRead_Refuses(t *testing.T) {
	good := read(t, "mlp.eqx")
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "holds no array"},
		{"text", []byte("t,x\n0,1\n"), "leaf 0 at byte 0: it does not begin as a NumPy array"},
		{"truncated values", good[:len(good)-1], "leaf 5 at byte"},
		{"truncated header", good[:40], "ends early; the file is truncated"},
		{"something behind", append(bytes.Clone(good), "more"...), "leaf 6 at byte"},
		{"only JSON", []byte("{}"), "a line of JSON without an end"},
		{"bad JSON", append([]byte("{x}\n"), good...), "first line are not JSON"},
		{"version", append([]byte(magic), "\x09\x00\x00\x00\x00\x00"...), "version is 9"},
		{"header", []byte(magic + "\x01\x00\x02\x00{}"), `header "{}" is not read`},
		{"integers", read(t, "integers.npy"), `type is "<i8", not one of`},
		{"big-endian", read(t, "bigendian.npy"), `type is ">f4", not one of`},
		{"huge", bytes.Replace(good, []byte("(3, 2)"), []byte("(2147483647, 2147483647, 2147483647)"), 1), "leaf 0 at byte 0"},
		{"shape", bytes.Replace(good, []byte("(3, 2)"), []byte("(3,,2)"), 1), "shape (3,,2) is not read"},
	} {
		f, err := Read(c.file)
		if err == nil || f != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	if err := Write(&bytes.Buffer{}, []safetensors.Tensor{safetensors.New("n", []int{1}, []int64{1})}); err == nil {
		t.Error("Write takes integers")
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"mlp.eqx", "hyper.eqx", "arrays.eqx"} {
		f.Add(read(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Read(b)
		if err != nil {
			return
		}
		for _, x := range file.Leaves {
			if len(x.Data) != x.Len()*x.DType.Size() {
				t.Errorf("%v holds %d bytes", x, len(x.Data))
			}
		}
	})
}
