package modelfile

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/mlp"
)

func example(t *testing.T) (*mlp.Model[float64], Meta) {
	t.Helper()
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, 3, 4, 3), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m, Meta{
		Time: "day", ID: "patient", States: []string{"a", "b"},
		TimeShift: 10, TimeScale: 4, Shift: []float64{1, -2}, Scale: []float64{2, 8},
		Method: "dopri5", Stepping: "per sample", RTol: 1e-5, ATol: 1e-7,
		Series: []Start{{ID: "p1", Time: 10, End: 20, State: []float64{0.1, 1. / 3, 0}}},
	}
}

func TestSaveLoad_RoundTrip(t *testing.T) {
	m, meta := example(t)
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := Save(path, m, meta); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Meta, meta) || !reflect.DeepEqual(got.Model, m) {
		t.Errorf("read %+v %+v, wrote %+v %+v", got.Meta, got.Model, meta, m)
	}
}

func TestLoad_PlainModel(t *testing.T) {
	m, _ := example(t)
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := m.SaveFile(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	x := []float64{1, 2, 3}
	if z := got.Z(x, 3, 0); !reflect.DeepEqual(z, x) || got.Tau(7) != 7 {
		t.Errorf("states %v became %v, time 7 %v; a plain model's variables are the data's", x, z, got.Tau(7))
	}
}

func TestMeta_Variables(t *testing.T) {
	_, m := example(t)
	x := []float64{3, 6, -1, -10}
	z := m.Z(x, 3, 0)
	if want := []float64{1, 1, 0, -1, -1, 0}; !reflect.DeepEqual(z, want) {
		t.Errorf("z = %v, want %v", z, want)
	}
	if got := m.X(z, 3); !reflect.DeepEqual(got, x) {
		t.Errorf("x = %v, want %v", got, x)
	}
	if got := m.Taus([]float64{10, 18}); !reflect.DeepEqual(got, []float64{0, 2}) {
		t.Errorf("τ = %v, want 0 and 2", got)
	}
}

func TestSave_Refuses(t *testing.T) {
	for want, spoil := range map[string]func(*Meta){
		"a scale is 0":       func(m *Meta) { m.Scale[1] = 0 },
		"a scale is -1":      func(m *Meta) { m.TimeScale = -1 },
		"1 shifts":           func(m *Meta) { m.Shift = m.Shift[:1] },
		"4 states are named": func(m *Meta) { m.States = []string{"a", "b", "c", "d"} },
		"stepping":           func(m *Meta) { m.Stepping = "alone" },
		"frog":               func(m *Meta) { m.Method = "frog" },
		"initial state":      func(m *Meta) { m.Series[0].State = nil },
	} {
		m, meta := example(t)
		spoil(&meta)
		err := Save(filepath.Join(t.TempDir(), "model.safetensors"), m, meta)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}
