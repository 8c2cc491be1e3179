package mlp

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pythonCase is one network of testdata/python.json, computed by numpy.
type pythonCase struct {
	File    string
	Spec    Spec
	Theta   []float64
	T       float64
	Z       []float64
	F       []float64
	DfDz    [][]float64 `json:"df_dz"`
	DfDt    []float64   `json:"df_dt"`
	DfTheta [][]float64 `json:"df_dtheta"`
}

func pythonCases(t *testing.T) []pythonCase {
	b, err := os.ReadFile("testdata/python.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []pythonCase
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 2 {
		t.Fatalf("%d cases", len(cases))
	}
	return cases
}

// Files written by Python's safetensors load, and the model computes what numpy
// does: f to rounding, derivatives to that of complex steps.
func TestLoad_PythonFile(t *testing.T) {
	const tol = 1e-14
	for _, c := range pythonCases(t) {
		path := filepath.Join("testdata", c.File)
		m, err := LoadFile[float64](path)
		if strings.Contains(c.File, "bare") {
			if err == nil || !strings.Contains(err.Error(), "LoadFileWithSpec") {
				t.Errorf("%s has no Spec, but: %v", path, err)
			}
			m, err = LoadFileWithSpec[float64](path, c.Spec)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !m.Spec.Equal(c.Spec) {
			t.Errorf("%s: Spec %+v, want %+v", path, m.Spec, c.Spec)
		}
		for i, v := range c.Theta {
			if m.Theta[i] != v {
				t.Errorf("%s: parameter %d is %v, want %v", path, i, m.Theta[i], v)
			}
		}
		f := make([]float64, m.OutDim())
		m.Eval(c.T, c.Z, f)
		for i := range f {
			if !close(f[i], c.F[i], tol, tol) {
				t.Errorf("%s: f[%d] = %v, numpy %v", path, i, f[i], c.F[i])
			}
			a := make([]float64, len(f))
			a[i] = 1
			az, atheta := make([]float64, m.Dim()), make([]float64, m.NumParams())
			if at := m.VJP(c.T, c.Z, a, az, atheta); !close(at, c.DfDt[i], tol, tol) {
				t.Errorf("%s: ∂f[%d]/∂t = %v, numpy %v", path, i, at, c.DfDt[i])
			}
			for j := range az {
				if !close(az[j], c.DfDz[i][j], tol, tol) {
					t.Errorf("%s: ∂f[%d]/∂z[%d] = %v, numpy %v", path, i, j, az[j], c.DfDz[i][j])
				}
			}
			for j := range atheta {
				if !close(atheta[j], c.DfTheta[i][j], tol, tol) {
					t.Errorf("%s: ∂f[%d]/∂θ[%d] = %v, numpy %v", path, i, j, atheta[j], c.DfTheta[i][j])
				}
			}
		}
		if m32, err := LoadFileWithSpec[float32](path, c.Spec); err != nil || m32.Theta[0] != float32(c.Theta[0]) {
			t.Errorf("%s as float32: %v", path, err)
		}
	}
}

const readInPython = `
import json, sys
from safetensors import safe_open
with safe_open(sys.argv[1], framework="np") as f:
    print(json.dumps({
        "spec": json.loads(f.metadata()["neuralode.spec"]),
        "tensors": {k: {"dtype": str(f.get_tensor(k).dtype), "shape": f.get_tensor(k).shape, "values": f.get_tensor(k).ravel().tolist()} for k in f.keys()},
    }))
`

// Python's safetensors reads our files. Skipped where it is not installed.
func TestSave_PythonReads(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import numpy, safetensors").Run() != nil {
		t.Skip("needs python3 with the packages safetensors and numpy")
	}
	t.Run("float32", func(t *testing.T) { pythonReads(t, python, testModel[float32](t), "float32") })
	t.Run("float64", func(t *testing.T) { pythonReads(t, python, testModel[float64](t), "float64") })
}

func pythonReads[T Float](t *testing.T, python string, m *Model[T], dtype string) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := m.SaveFile(path); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", readInPython, path)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Spec    Spec
		Tensors map[string]struct {
			DType  string
			Shape  []int
			Values []float64
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if !got.Spec.Equal(m.Spec) || len(got.Tensors) != 4 {
		t.Errorf("Python read the Spec %+v and %d tensors", got.Spec, len(got.Tensors))
	}
	for _, e := range entries(m.Spec) {
		x := got.Tensors[e.name]
		if x.DType != dtype || len(x.Values) != e.size() || len(x.Shape) != len(e.shape) {
			t.Errorf("%s: Python read %+v", e.name, x)
			continue
		}
		for i, v := range x.Values {
			if v != float64(m.Theta[e.offset+i]) {
				t.Errorf("%s[%d]: Python read %v, want %v", e.name, i, v, m.Theta[e.offset+i])
			}
		}
	}
}
