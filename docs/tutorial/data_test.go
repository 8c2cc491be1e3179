package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/seed-5f5774c8/neuralode/cpu"
	"github.com/seed-5f5774c8/neuralode/field"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// pendulum is a damped one: angle in radians, speed in radians a second.
func pendulum[T field.Number](_ T, z, theta, dz []T) {
	dz[0] = z[1]
	dz[1] = -theta[0]*field.Sin(z[0]) - theta[1]*z[1]
}

// record makes pendulum.csv: 40 releases from rest, each measured at 21 times of its own
// within 4 seconds, with normal noise of 0.02 in angle and speed.
func record(t *testing.T) string {
	dev := cpu.New[float64]()
	defer dev.Close()
	s, err := solver.New(dev, field.New(2, []float64{9.81 / 1.5, 0.3}, pendulum[float64], pendulum[field.Dual]),
		solver.Settings{Stepping: solver.PerSample, RTol: 1e-10, ATol: 1e-10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := rand.New(rand.NewPCG(1, 2))
	var z0 []float64
	var samples []solver.Sample
	for range 40 {
		times := make([]float64, 21)
		for i := 1; i < len(times); i++ {
			times[i] = math.Round(1000*(0.2*float64(i)+0.1*(r.Float64()-0.5))) / 1000
		}
		z0, samples = append(z0, 4*r.Float64()-2, 0), append(samples, solver.Sample{Times: times})
	}
	sol, err := s.SolveEach(context.Background(), z0, samples)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("release,time,angle,speed\n")
	for k := range samples {
		for i, time := range sol.SampleTimes(k) {
			z := sol.Sample(i, k)
			fmt.Fprintf(&b, "%d,%g,%.3f,%.3f\n", k+1, time, z[0]+0.02*r.NormFloat64(), z[1]+0.02*r.NormFloat64())
		}
	}
	return b.String()
}

func TestRecord_IsWhatTheTutorialSays(t *testing.T) {
	got, err := os.ReadFile("pendulum.csv")
	if err != nil {
		t.Fatal(err)
	}
	if want := record(t); strings.ReplaceAll(string(got), "\r\n", "\n") != want {
		t.Error("pendulum.csv is not the record that is made here")
	}
}
