package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/mlp"
)

func TestTutorial_LearnsTheRecord(t *testing.T) {
	var b strings.Builder
	dir := t.TempDir()
	rmse := run(t.Context(), &b, "pendulum.csv", dir, 150)
	if rmse > 0.1 { // the noise is 0.02, the states are about 1 and 3
		t.Errorf("root mean square error %.3f", rmse)
	}
	if again := run(t.Context(), &b, "pendulum.csv", dir, 150); again != rmse { // from the checkpoint
		t.Errorf("root mean square error %v, from the checkpoint %v", rmse, again)
	}
	if _, err := mlp.LoadFile[float64](filepath.Join(dir, "pendulum.safetensors")); err != nil {
		t.Error(err)
	}
}

func TestUndo_IsTheSameModelInOtherUnits(t *testing.T) {
	m, err := mlp.New[float64](mlp.Dense(mlp.Tanh, dim, 5, dim), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	c := scaling{Shift: [dim]float64{0.5, -2}, Scale: [dim]float64{3, 0.25}}
	z, x, dz, dx := make([]float64, dim), []float64{0.7, -1.5}, make([]float64, dim), make([]float64, dim)
	for j := range z {
		z[j] = (x[j] - c.Shift[j]) / c.Scale[j]
	}
	m.Eval(0, z, dz)
	c.undo(m)
	m.Eval(0, x, dx)
	for j := range dx {
		if want := c.Scale[j] * dz[j]; math.Abs(dx[j]-want) > 1e-14 {
			t.Errorf("dx[%d]/dt = %v, want %v", j, dx[j], want)
		}
	}
}

func TestRead_MissingValues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "few.csv")
	if err := os.WriteFile(path, []byte("release,time,angle,speed\na,0,1,2\na,1,,3\nb,5,4,\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	all := read(path)
	if len(all) != 2 || len(all[0].Times) != 2 || !math.IsNaN(all[0].Values[2]) || all[0].Values[3] != 3 || all[1].Z0[0] != 4 {
		t.Errorf("%v", all)
	}
}
