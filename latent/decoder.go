package latent

import (
	"github.com/seed-5f5774c8/neuralode/backend"
	"github.com/seed-5f5774c8/neuralode/internal/simd"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// tileLanes is how many states the decoder takes at a time: their layers stay in the
// cache.
const tileLanes = 64

// decoder is a perceptron on tiles of states. Its parameters are those of its model.
type decoder[T backend.Float] struct {
	layers      []mlp.Layer
	x, pre      [][]T // of each layer, x one more
	delta, next []T
	work        []T
}

func newDecoder[T backend.Float](spec mlp.Spec) decoder[T] {
	d := decoder[T]{layers: spec.Layers()}
	widest := 0
	for l, ly := range d.layers {
		widest = max(widest, ly.In, ly.Out)
		d.x, d.pre = append(d.x, make([]T, ly.In*tileLanes)), append(d.pre, make([]T, ly.Out*tileLanes))
		if l == len(d.layers)-1 {
			d.x = append(d.x, make([]T, ly.Out*tileLanes))
		}
	}
	d.delta, d.next, d.work = make([]T, widest*tileLanes), make([]T, widest*tileLanes), make([]T, widest*tileLanes)
	return d
}

// each decodes rows of z, [·, L], a tile at a time: do gets the outputs of rows[lo:lo+n],
// [D][n], valid until it returns.
func (d *decoder[T]) each(theta, z []T, rows []int32, do func(lo, n int, out []T)) {
	for lo := 0; lo < len(rows); lo += tileLanes {
		n := min(tileLanes, len(rows)-lo)
		simd.Gather(d.x[0], n, z, rows[lo:lo+n], d.layers[0].In)
		for l, ly := range d.layers {
			apply(ly, theta, d.pre[l], d.x[l], n, n)
			simd.Activate(ly.Act, d.x[l+1][:ly.Out*n], d.pre[l][:ly.Out*n])
		}
		do(lo, n, d.x[len(d.layers)])
	}
}

// backward propagates the cotangents dout of the tile that each has just decoded: it sets
// those of its rows in dz and adds to grad. dout is overwritten.
func (d *decoder[T]) backward(theta, dz []T, rows []int32, dout, grad []T) {
	n := len(rows)
	delta := d.delta
	copy(delta, dout)
	next := d.next
	for l := len(d.layers) - 1; l >= 0; l-- {
		ly := d.layers[l]
		simd.TimesSlope(ly.Act, delta[:ly.Out*n], d.pre[l][:ly.Out*n], d.x[l+1][:ly.Out*n])
		addGradient(ly, grad, delta, d.x[l], d.work, n, n)
		back(simd.Set, ly, theta, next, delta, n, n)
		delta, next = next, delta
	}
	simd.Scatter(dz, delta, n, rows, d.layers[0].In, 1, false)
}
