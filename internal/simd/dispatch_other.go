//go:build noasm || !amd64

package simd

import "github.com/seed-5f5774c8/neuralode/mlp"

// Level names the instructions in use: "avx512", "avx2" or "go".
func Level() string { return "go" }

func gemmAsm[T Float](Mode, []T, int, []T, int, int, []T, int, int, int, int, []T) bool { return false }

func activateAsm[T Float](mlp.Activation, []T, []T) bool   { return false }
func slopeAsm[T Float](mlp.Activation, []T, []T, []T) bool { return false }

func combineAsm[T Float](_, _, _, _ []T, _ [][]T) bool { return false }

func errorsAsm[T Float](_ []float64, _, _ []T, _, _ []float64, _ [][]T, _, _ float64) bool {
	return false
}

func sumMaxAsm([]float64, *[4]float64, *[4]float64) bool { return false }

func rowSumsAsm[T Float]([]T, []T, int, int) bool { return false }

func transposeAsm[T Float]([]T, int, []T, int, int, int) bool { return false }

func gatherAsm[T Float]([]T, int, []T, []int32, int) bool { return false }

func scatterAsm[T Float]([]T, []T, int, []int32, int, T, bool) bool { return false }
