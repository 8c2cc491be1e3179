package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/adjoint"
	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example"
	"github.com/seed-5f5774c8/neuralode/examples/internal/example/exampletest"
	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

func gzipped(t *testing.T, parts ...any) []byte {
	t.Helper()
	var file bytes.Buffer
	z := gzip.NewWriter(&file)
	for _, p := range parts {
		if err := binary.Write(z, binary.BigEndian, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// synthetic writes files of the form of Fashion-MNIST: a class is a bar at a height of
// its own, in noise.
func synthetic(t *testing.T) string {
	t.Helper()
	dir, rng := t.TempDir(), rand.New(rand.NewPCG(1, 2))
	for part, n := range map[string]int{"train": 500, "t10k": 100} {
		images, labels := make([]byte, n*pixels), make([]byte, n)
		for i := range n {
			labels[i] = byte(i % classes)
			for k := range pixels {
				images[i*pixels+k] = byte(rng.IntN(120))
				if row := k / 28; row/2 == 2+int(labels[i]) {
					images[i*pixels+k] += 100
				}
			}
		}
		for name, data := range map[string][]byte{
			part + "-images-idx3-ubyte.gz": gzipped(t, []byte{0, 0, 8, 3}, []uint32{uint32(n), 28, 28}, images),
			part + "-labels-idx1-ubyte.gz": gzipped(t, []byte{0, 0, 8, 1}, uint32(n), labels),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func TestFashionMNIST_LearnsBars(t *testing.T) {
	dir := synthetic(t)
	found := exampletest.Short(t, func(ctx context.Context, e *example.Env) error { return run(ctx, e, dir, 4) })
	if found["test_accuracy"] < 90 {
		t.Errorf("test accuracy %g %%, want 90", found["test_accuracy"])
	}
}

// The gradient of all parameters is that of differences of the loss.
func TestClassifier_Gradient(t *testing.T) {
	data, err := load(synthetic(t), "t10k")
	if err != nil {
		t.Fatal(err)
	}
	dev := cpu.New[float32]()
	defer dev.Close()
	f, err := mlp.New[float32](mlp.Dense(mlp.Tanh, 3, 4, 3), mlp.Init{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, err := solver.New(dev, f, solver.Settings{Method: solver.RK4, Step: 0.25})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := adjoint.New(s, adjoint.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	m := &classifier{s, a, data}
	rng := rand.New(rand.NewPCG(3, 4))
	p, dir, grad := make([]float32, m.NumParams()), make([]float32, m.NumParams()), make([]float32, m.NumParams())
	for i := range p {
		p[i] = 0.05 * float32(rng.NormFloat64())
	}
	batch := []int{3, 14, 15, 92}
	if _, err := m.Gradient(t.Context(), p, batch, grad); err != nil {
		t.Fatal(err)
	}
	// One direction in each of the parts W, b, V, c and θ.
	w := m.views(dir)
	for k, part := range [][]float32{w.W.Data, w.b, w.V.Data, w.c, w.theta} {
		clear(dir)
		norm, want := 0.0, 0.0
		for i := range part {
			part[i] = float32(rng.NormFloat64())
			norm += float64(part[i] * part[i])
		}
		h := float32(0.02 / math.Sqrt(norm)) // ε^(1/3), near where truncation and rounding balance
		for i, v := range dir {
			want += float64(v * grad[i])
		}
		var loss [2]float64
		for j, sign := range []float32{-1, 1} {
			q := slices.Clone(p)
			for i, v := range dir {
				q[i] += sign * h * v
			}
			if loss[j], err = m.Loss(t.Context(), q, batch); err != nil {
				t.Fatal(err)
			}
		}
		got := (loss[1] - loss[0]) / (2 * float64(h))
		if math.Abs(got-want) > 0.01*math.Abs(want)+1e-6*math.Sqrt(norm)/0.02 {
			t.Errorf("part %d: the derivative is %g, by differences %g", k, want, got)
		}
	}
}

func TestReadIDX_Errors(t *testing.T) {
	good := gzipped(t, []byte{0, 0, 8, 1}, uint32(3), []byte{1, 2, 3})
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"not gzip":   {[]byte("text"), "get the file again"},
		"cut":        {good[:len(good)-9], "unexpected EOF"},
		"cut header": {gzipped(t, []byte{0, 0, 8}), "EOF"},
		"floats":     {gzipped(t, []byte{0, 0, 13, 1}, uint32(3)), "not bytes of 1 dimensions"},
		"too short":  {gzipped(t, []byte{0, 0, 8, 1}, uint32(4), []byte{1, 2, 3}), "does not hold 4"},
		"too long":   {gzipped(t, []byte{0, 0, 8, 1}, uint32(2), []byte{1, 2, 3}), "does not hold 2"},
	} {
		path := filepath.Join(t.TempDir(), "a.gz")
		if err := os.WriteFile(path, c.file, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readIDX(path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want one about %q and %s", name, err, c.want, path)
		}
	}
	_, err := load(t.TempDir(), "train")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "apt install dataset-fashion-mnist") {
		t.Errorf("no file: %v", err)
	}
}
