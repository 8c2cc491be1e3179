package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

const (
	torchFile   = "../../internal/torchfile/testdata/state_dict.pt"
	equinoxFile = "../../internal/eqxfile/testdata/hyper.eqx"
)

// command runs a command line and returns its exit code and what it printed.
func command(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// succeed is command, which has to end well.
func succeed(t *testing.T, args ...string) (out string) {
	t.Helper()
	code, out, errs := command(t, args...)
	if code != exitOK {
		t.Fatalf("%v: exit code %d: %s", args, code, errs)
	}
	return out
}

// Every format to every other, by way of all of them, gives the first model again.
func TestConvert_RoundTrip(t *testing.T) {
	spec := mlp.Dense(mlp.SiLU, 2, 5, 4, 2)
	spec.Time, spec.Input = mlp.TimeInput, mlp.InputCube
	want, err := mlp.New[float64](spec, mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := want.SaveFile(at("a.safetensors")); err != nil {
		t.Fatal(err)
	}
	succeed(t, "convert", at("a.safetensors"), at("b.pt"), "--names", "odefunc.net.{2i}", "--time-first")
	succeed(t, "convert", at("b.pt"), at("c.safetensors"), "--prefix", "odefunc", "--names", "f{i}", "--time-first", "--activation", "silu")
	succeed(t, "convert", at("c.safetensors"), at("d.eqx"), "--activation", "silu", "--time-first")
	succeed(t, "convert", at("d.eqx"), at("e.safetensors"), "--activation", "silu", "--input", "cube", "--time-first")
	got, err := mlp.LoadFile[float64](at("e.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Spec.Equal(spec) || !slices.Equal(got.Theta, want.Theta) {
		t.Errorf("%+v is not %+v", got, want)
	}
}

func TestConvert_Report(t *testing.T) {
	dir := t.TempDir()
	out := succeed(t, "convert", torchFile, filepath.Join(dir, "m.safetensors"), "--activation", "tanh", "--precision", "float64")
	_, out, _ = strings.Cut(out, "\n")
	const want = `z → Linear(2, 3) → tanh → Linear(3, 2), float64

0.weight  F32  [3 2]  → layers.0.weight  
0.bias    F32  [3]    → layers.0.bias    
2.weight  F32  [2 3]  → layers.1.weight  
2.bias    F32  [2]    → layers.1.bias    
`
	if out != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
	// The hyperparameters name the activation.
	out = succeed(t, "--json", "convert", equinoxFile, filepath.Join(dir, "e.safetensors"))
	var r conversionReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Spec.Equal(mlp.Dense(mlp.Tanh, 2, 3, 3, 2)) || r.DType != "float32" || len(r.Tensors) != 6 || r.Tensors[5].To != "layers.2.bias" {
		t.Errorf("report %+v", r)
	}
}

// The units of a model stay in its own format; another gets none, with a warning.
func TestConvert_Units(t *testing.T) {
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 2, 4, 2), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	run, out := t.TempDir(), t.TempDir()
	meta := modelfile.Meta{
		Time: "day", States: []string{"a", "b"}, TimeScale: 5, Shift: []float64{100, 7}, Scale: []float64{10, 0.1}, Method: "dopri5", Stepping: "joint",
		Series: []modelfile.Start{{Time: 10, End: 15, State: []float64{1, 1}}},
	}
	if err := modelfile.Save(filepath.Join(run, "model.safetensors"), m, meta); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(out, "m.safetensors")
	if report := succeed(t, "convert", run, path, "--precision", "float32"); strings.Contains(report, "warning") {
		t.Error(report)
	}
	got, err := modelfile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Wide || !reflect.DeepEqual(got.Meta, meta) {
		t.Errorf("%+v, want %+v", got.Meta, meta)
	}
	for _, args := range [][]string{{filepath.Join(out, "m.pt")}, {filepath.Join(out, "n.safetensors"), "--names", "{2i}"}} {
		if report := succeed(t, append([]string{"convert", run}, args...)...); !strings.Contains(report, `warning: the metadata "neuralode.data"`) {
			t.Error(report)
		}
	}
}

func TestConvert_Errors(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	m := filepath.Join(dir, "m.safetensors")
	succeed(t, "convert", torchFile, m, "--activation", "tanh")
	if err := safetensors.WriteFile(at("big.safetensors"), []safetensors.Tensor{safetensors.New("0.weight", []int{1, 1}, []float64{1e300})}, nil); err != nil {
		t.Fatal(err)
	}
	if err := safetensors.WriteFile(at("nan.safetensors"), []safetensors.Tensor{safetensors.New("0.weight", []int{1, 1}, []float64{math.NaN()})}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("text.pt"), []byte("hello"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"", exitUsage, "IN is missing"},
		{"a.onnx " + m, exitUsage, `ending ".onnx"; convert knows .safetensors`},
		{at("none.pt") + " " + at("x.eqx"), exitFailure, "does not exist"},
		{at("text.pt") + " " + at("x.eqx"), exitFailure, "no file of torch.save"},
		{t.TempDir() + " " + at("x.eqx"), exitFailure, "model.safetensors does not exist"},
		{torchFile + " " + at("x.safetensors"), exitUsage, "give --activation, one of identity, tanh"},
		{torchFile + " " + at("x.safetensors") + " --activation swish", exitUsage, `swish`},
		{torchFile + " " + at("x.safetensors") + " --activation tanh --time never", exitUsage, `never`},
		{torchFile + " " + at("x.safetensors") + " --activation tanh --precision half", exitUsage, "give float32 or float64"},
		{torchFile + " " + at("x.safetensors") + " --activation tanh --prefix net", exitFailure, "no tensor is named net."},
		{m + " " + at("x.pt") + " --activation tanh", exitUsage, "--activation is about foreign files"},
		{m + " " + at("x.pt") + " --names net", exitUsage, "put {i} in the place"},
		{at("big.safetensors") + " " + at("x.eqx") + " --precision float32", exitFailure, "give --precision float64"},
		{at("nan.safetensors") + " " + at("x.eqx"), exitFailure, "element 0 is NaN"},
		{m + " " + at("none/x.pt"), exitFailure, "its folder does not exist"},
	} {
		code, _, errs := command(t, append([]string{"convert"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("convert %s: exit code %d, %s, want %d and %q", c.args, code, errs, c.code, c.want)
		}
	}
	for _, name := range []string{"x.pt", "x.eqx", "x.safetensors"} {
		if _, err := os.Stat(at(name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}
