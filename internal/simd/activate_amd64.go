//go:build !noasm

package simd

import (
	"math"

	"github.com/seed-5f5774c8/neuralode/mlp"
)

// activatesF32 are the assembly for AVX2 and AVX-512.
var activatesF32 = [...][2]func(y, x *float32, n int){
	mlp.Tanh:      {activateTanhF32AVX2, activateTanhF32AVX512},
	mlp.Sigmoid:   {activateSigmoidF32AVX2, activateSigmoidF32AVX512},
	mlp.ReLU:      {activateReLUF32AVX2, activateReLUF32AVX512},
	mlp.LeakyReLU: {activateLeakyReLUF32AVX2, activateLeakyReLUF32AVX512},
	mlp.ELU:       {activateELUF32AVX2, activateELUF32AVX512},
	mlp.Softplus:  {activateSoftplusF32AVX2, activateSoftplusF32AVX512},
	mlp.SiLU:      {activateSiLUF32AVX2, activateSiLUF32AVX512},
	mlp.GELU:      {activateGELUF32AVX2, activateGELUF32AVX512},
	mlp.GELUTanh:  {activateGELUTanhF32AVX2, activateGELUTanhF32AVX512},
}

// activatesF64 are the assembly for AVX2 and AVX-512.
var activatesF64 = [...][2]func(y, x *float64, n int){
	mlp.Tanh:      {activateTanhF64AVX2, activateTanhF64AVX512},
	mlp.Sigmoid:   {activateSigmoidF64AVX2, activateSigmoidF64AVX512},
	mlp.ReLU:      {activateReLUF64AVX2, activateReLUF64AVX512},
	mlp.LeakyReLU: {activateLeakyReLUF64AVX2, activateLeakyReLUF64AVX512},
	mlp.ELU:       {activateELUF64AVX2, activateELUF64AVX512},
	mlp.Softplus:  {activateSoftplusF64AVX2, activateSoftplusF64AVX512},
	mlp.SiLU:      {activateSiLUF64AVX2, activateSiLUF64AVX512},
	mlp.GELU:      {activateGELUF64AVX2, activateGELUF64AVX512},
	mlp.GELUTanh:  {activateGELUTanhF64AVX2, activateGELUTanhF64AVX512},
}

// slopesF32 are the assembly for AVX2 and AVX-512.
var slopesF32 = [...][2]func(d, x, y *float32, n int){
	mlp.Tanh:      {slopeTanhF32AVX2, slopeTanhF32AVX512},
	mlp.Sigmoid:   {slopeSigmoidF32AVX2, slopeSigmoidF32AVX512},
	mlp.ReLU:      {slopeReLUF32AVX2, slopeReLUF32AVX512},
	mlp.LeakyReLU: {slopeLeakyReLUF32AVX2, slopeLeakyReLUF32AVX512},
	mlp.ELU:       {slopeELUF32AVX2, slopeELUF32AVX512},
	mlp.Softplus:  {slopeSoftplusF32AVX2, slopeSoftplusF32AVX512},
	mlp.SiLU:      {slopeSiLUF32AVX2, slopeSiLUF32AVX512},
	mlp.GELU:      {slopeGELUF32AVX2, slopeGELUF32AVX512},
	mlp.GELUTanh:  {slopeGELUTanhF32AVX2, slopeGELUTanhF32AVX512},
}

// slopesF64 are the assembly for AVX2 and AVX-512.
var slopesF64 = [...][2]func(d, x, y *float64, n int){
	mlp.Tanh:      {slopeTanhF64AVX2, slopeTanhF64AVX512},
	mlp.Sigmoid:   {slopeSigmoidF64AVX2, slopeSigmoidF64AVX512},
	mlp.ReLU:      {slopeReLUF64AVX2, slopeReLUF64AVX512},
	mlp.LeakyReLU: {slopeLeakyReLUF64AVX2, slopeLeakyReLUF64AVX512},
	mlp.ELU:       {slopeELUF64AVX2, slopeELUF64AVX512},
	mlp.Softplus:  {slopeSoftplusF64AVX2, slopeSoftplusF64AVX512},
	mlp.SiLU:      {slopeSiLUF64AVX2, slopeSiLUF64AVX512},
	mlp.GELU:      {slopeGELUF64AVX2, slopeGELUF64AVX512},
	mlp.GELUTanh:  {slopeGELUTanhF64AVX2, slopeGELUTanhF64AVX512},
}

func activateAsm[T Float](act mlp.Activation, y, x []T) bool {
	switch {
	case level == 0:
		return false
	case act == mlp.Sin:
		sinAsm(y, x)
	case size[T]() == 4:
		activatesF32[act][level-1](f32(y), f32(x), len(x))
	default:
		activatesF64[act][level-1](f64(y), f64(x), len(x))
	}
	return true
}

func slopeAsm[T Float](act mlp.Activation, d, x, y []T) bool {
	switch {
	case level == 0:
		return false
	case act == mlp.Sin:
		timesCosAsm(d, x)
	case size[T]() == 4:
		slopesF32[act][level-1](f32(d), f32(x), f32(y), len(x))
	default:
		slopesF64[act][level-1](f64(d), f64(x), f64(y), len(x))
	}
	return true
}

// sinLimit is where the assembly's sine ends.
const sinLimit = 1 << 20

// sinAsm leaves large numbers to Go: the assembly has put them in y as they are.
func sinAsm[T Float](y, x []T) {
	var more uint32
	switch {
	case size[T]() == 4 && level == 1:
		more = activateSinF32AVX2(f32(y), f32(x), len(x))
	case size[T]() == 4:
		more = activateSinF32AVX512(f32(y), f32(x), len(x))
	case level == 1:
		more = activateSinF64AVX2(f64(y), f64(x), len(x))
	default:
		more = activateSinF64AVX512(f64(y), f64(x), len(x))
	}
	if more == 0 {
		return
	}
	for i, v := range y {
		if v > sinLimit || v < -sinLimit {
			y[i] = T(math.Sin(float64(v)))
		}
	}
}

// timesCosAsm leaves large numbers to Go.
func timesCosAsm[T Float](d, x []T) {
	var more uint32
	switch {
	case size[T]() == 4 && level == 1:
		more = slopeSinF32AVX2(f32(d), f32(x), len(x))
	case size[T]() == 4:
		more = slopeSinF32AVX512(f32(d), f32(x), len(x))
	case level == 1:
		more = slopeSinF64AVX2(f64(d), f64(x), len(x))
	default:
		more = slopeSinF64AVX512(f64(d), f64(x), len(x))
	}
	if more == 0 {
		return
	}
	for i, v := range x {
		if v > sinLimit || v < -sinLimit {
			d[i] *= T(math.Cos(float64(v)))
		}
	}
}
