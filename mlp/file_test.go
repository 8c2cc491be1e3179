package mlp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

func testModel[T Float](t testing.TB) *Model[T] {
	spec := Spec{Widths: []int{2, 3, 2}, Activations: []Activation{GELUTanh, Identity}, Time: TimeInput, Input: InputCube}
	m, err := New[T](spec, Init{}, 9)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func saved[T Float](t testing.TB, m *Model[T]) []byte {
	var b bytes.Buffer
	if err := m.Save(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSaveLoad_RoundTrip(t *testing.T) {
	t.Run("float32", roundTrip[float32])
	t.Run("float64", roundTrip[float64])
}

func roundTrip[T Float](t *testing.T) {
	m := testModel[T](t)
	m.Theta[0], m.Theta[1] = T(math.Copysign(0, -1)), 5e-324 // a subnormal, or 0
	b := saved(t, m)
	if !bytes.Equal(b, saved(t, m)) {
		t.Error("two saves differ")
	}
	got, err := Load[T](bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Spec.Equal(m.Spec) || !slices.Equal(got.Theta, m.Theta) || !math.Signbit(float64(got.Theta[0])) {
		t.Errorf("loaded %+v, saved %+v", got, m)
	}

	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := m.SaveFile(path); err != nil {
		t.Fatal(err)
	}
	if got, err = LoadFile[T](path); err != nil || !slices.Equal(got.Theta, m.Theta) {
		t.Errorf("%v, %v", got, err)
	}
	if onDisk, err := os.ReadFile(path); err != nil || !bytes.Equal(onDisk, b) {
		t.Errorf("SaveFile and Save differ (%v)", err)
	}
	// A Spec may be given if it is the same.
	if _, err := LoadFileWithSpec[T](path, m.Spec); err != nil {
		t.Error(err)
	}
	if _, err := LoadFileWithSpec[T](path, Dense(Tanh, 2, 2)); err == nil || !strings.Contains(err.Error(), "not the Spec asked for") {
		t.Errorf("another Spec: %v", err)
	}
}

func TestLoad_ConvertsPrecision(t *testing.T) {
	m := testModel[float64](t)
	f, err := Load[float32](bytes.NewReader(saved(t, m)))
	if err != nil || !slices.Equal(f.Theta, Convert[float32](m).Theta) {
		t.Errorf("float64 to float32: %v, %v", f, err)
	}
	m, err = Load[float64](bytes.NewReader(saved(t, f)))
	if err != nil || !slices.Equal(m.Theta, Convert[float64](f).Theta) {
		t.Errorf("float32 to float64: %v, %v", m, err)
	}
	m.Theta[6] = 1e39 // layers.0.weight[2,0]
	_, err = Load[float32](bytes.NewReader(saved(t, m)))
	if err == nil || !strings.Contains(err.Error(), `tensor "layers.0.weight" at byte`) || !strings.Contains(err.Error(), "element 6 is 1e+39, beyond the range of float32; load the file as float64") {
		t.Errorf("overflow: %v", err)
	}
}

func TestSave_Refuses(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		m := testModel[float64](t)
		m.Bias(0)[2] = bad
		path := filepath.Join(t.TempDir(), "m")
		if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("mlp: layers.0.bias has the value %v at element 2", bad)
		if err := m.SaveFile(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if b, _ := os.ReadFile(path); string(b) != "before" {
			t.Error("the old file is gone")
		}
		var b bytes.Buffer
		if err := m.Save(&b); err == nil || b.Len() != 0 {
			t.Errorf("Save: %v, %d bytes written", err, b.Len())
		}
	}
	m := testModel[float64](t)
	m.Theta = m.Theta[1:]
	if err := m.Save(&bytes.Buffer{}); err == nil {
		t.Error("a model of the wrong length was saved")
	}
	m = testModel[float64](t)
	if err := m.SaveFile(filepath.Join(t.TempDir(), "none", "m")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	broken := errors.New("broken pipe")
	if err := m.Save(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("failing writer: %v", err)
	}
	if _, err := Load[float64](failing{broken}); !errors.Is(err, broken) {
		t.Errorf("failing reader: %v", err)
	}
	if _, err := LoadFile[float64](filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Read([]byte) (int, error)  { return 0, f.err }

// rewrite changes the tensors or the metadata of a saved model.
func rewrite(t testing.TB, change func(f *safetensors.File)) []byte {
	f, err := safetensors.Read(saved(t, testModel[float64](t)))
	if err != nil {
		t.Fatal(err)
	}
	change(f)
	var b bytes.Buffer
	if err := safetensors.Write(&b, f.Tensors, f.Metadata); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func find(f *safetensors.File, name string) *safetensors.Tensor {
	i := slices.IndexFunc(f.Tensors, func(t safetensors.Tensor) bool { return t.Name == name })
	return &f.Tensors[i]
}

func TestLoad_RefusesWrongModels(t *testing.T) {
	set := func(name string, i int, v float64) func(*safetensors.File) {
		return func(f *safetensors.File) {
			x := find(f, name)
			x.Data = slices.Clone(x.Data)
			binary.LittleEndian.PutUint64(x.Data[8*i:], math.Float64bits(v))
		}
	}
	for _, c := range []struct {
		name   string
		change func(f *safetensors.File)
		want   string
	}{
		{"NaN", set("layers.1.weight", 3, math.NaN()), `tensor "layers.1.weight" at byte 584: element 3 is NaN; the run that wrote the file had diverged`},
		{"Inf", set("layers.1.bias", 0, math.Inf(-1)), `tensor "layers.1.bias" at byte`},
		{"missing", func(f *safetensors.File) { f.Tensors = f.Tensors[1:] }, `tensor "layers.0.bias" is missing; the Spec has 2 layers`},
		{"extra", func(f *safetensors.File) {
			f.Tensors = append(f.Tensors, safetensors.New("layers.2.bias", []int{1}, []float64{1}))
		}, `tensor "layers.2.bias" at byte`},
		{"renamed", func(f *safetensors.File) { find(f, "layers.1.bias").Name = "layers.01.bias" }, `tensor "layers.1.bias" is missing`},
		{"transposed", func(f *safetensors.File) { find(f, "layers.1.weight").Shape = []int{3, 2} }, `has shape [3 2], but the Spec says [2 3]`},
		{"flat", func(f *safetensors.File) { find(f, "layers.1.weight").Shape = []int{6} }, `has shape [6], but the Spec says [2 3]`},
		{"bias as column", func(f *safetensors.File) { find(f, "layers.1.bias").Shape = []int{2, 1} }, `has shape [2 1], but the Spec says [2]`},
		{"integers", func(f *safetensors.File) {
			*find(f, "layers.1.bias") = safetensors.New("layers.1.bias", []int{2}, []int64{1, 2})
		}, `is I64, want F16, BF16, F32 or F64`},
		{"no metadata", func(f *safetensors.File) { f.Metadata = nil }, `metadata has no "neuralode.spec"; load it with LoadWithSpec or LoadFileWithSpec`},
		{"other metadata", func(f *safetensors.File) { f.Metadata = map[string]string{"format": "pt"} }, `metadata has no "neuralode.spec"`},
		{"unknown activation", func(f *safetensors.File) {
			f.Metadata[SpecKey] = strings.Replace(f.Metadata[SpecKey], "gelu_tanh", "foo", 1)
		}, `metadata "neuralode.spec": mlp: layer 0: mlp: activation "foo" unknown; use one of identity`},
		{"spec of gigabytes", func(f *safetensors.File) {
			f.Metadata[SpecKey] = strings.Replace(f.Metadata[SpecKey], "[2,3,2]", "[30000,30000,30000]", 1)
		}, `but the Spec says [30000 30001]`},
		{"time elsewhere", func(f *safetensors.File) {
			f.Metadata[SpecKey] = strings.Replace(f.Metadata[SpecKey], `"time":"input"`, `"time":"none"`, 1)
		}, `has shape [3 3], but the Spec says [3 2]`},
	} {
		m, err := Load[float64](bytes.NewReader(rewrite(t, c.change)))
		if m != nil || err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "mlp: loading a model: ") {
			t.Errorf("%s: %v, error %v, want %q", c.name, m, err, c.want)
		}
	}
	if _, err := LoadWithSpec[float64](bytes.NewReader(saved(t, testModel[float64](t))), Spec{}); err == nil {
		t.Error("an invalid Spec was taken")
	}
}

// Every way to cut a file short, and every byte changed, is refused or loads a
// valid model; the header's own cases are tested in package safetensors.
func TestLoad_Mutations(t *testing.T) {
	b := saved(t, testModel[float64](t))
	for n := range b {
		if m, err := Load[float64](bytes.NewReader(b[:n])); err == nil || m != nil {
			t.Errorf("the first %d of %d bytes load", n, len(b))
		}
	}
	if _, err := Load[float64](bytes.NewReader(append(slices.Clone(b), 0))); err == nil || !strings.Contains(err.Error(), "1 bytes follow the last tensor") {
		t.Errorf("trailing byte: %v", err)
	}
	for i := range b {
		for _, x := range []byte{0x01, 0x20, 0x80, 0xff} {
			c := slices.Clone(b)
			c[i] ^= x
			checkLoad(t, c)
		}
	}
}

// checkLoad checks what must hold of any bytes: an error and no model, or a valid
// model that is saved and loaded again without a change.
func checkLoad(t *testing.T, b []byte) {
	m, err := Load[float64](bytes.NewReader(b))
	if err != nil {
		if m != nil || !strings.HasPrefix(err.Error(), "mlp: ") {
			t.Fatalf("model %v with error %v", m, err)
		}
		return
	}
	if err := m.Validate(); err != nil {
		t.Fatalf("loaded an invalid model: %v", err)
	}
	for i, v := range m.Theta {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("loaded %v at %d", v, i)
		}
	}
	again, err := Load[float64](bytes.NewReader(saved(t, m)))
	if err != nil || !again.Spec.Equal(m.Spec) || !slices.Equal(again.Theta, m.Theta) {
		t.Fatalf("a loaded model does not survive saving: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	b := saved(f, testModel[float64](f))
	f.Add(b)
	f.Add(saved(f, testModel[float32](f)))
	f.Add(b[:len(b)-1])
	f.Add(b[:40])
	f.Add(append(slices.Clone(b), 1))
	for _, edit := range [][2]string{
		{"gelu_tanh", "sin"}, {"[3,3]", "[9,1]"}, {`"F64"`, `"F32"`}, {"[2,3,2]", "[2,9,2]"}, {"layers.0.bias", "layers.1.bias"},
	} {
		f.Add(bytes.Replace(b, []byte(edit[0]), []byte(edit[1]), 1))
	}
	for _, name := range []string{"python.safetensors", "python_bare.safetensors"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkLoad(t, b) })
}

func TestSpecKeyHoldsSpec(t *testing.T) {
	m := testModel[float32](t)
	file, err := safetensors.Read(saved(t, m))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(m.Spec)
	if file.Metadata[SpecKey] != string(want) || len(file.Metadata) != 1 {
		t.Errorf("metadata %v", file.Metadata)
	}
	for _, x := range file.Tensors {
		if x.DType != safetensors.F32 {
			t.Errorf("%s is %v", x.Name, x.DType)
		}
	}
}
