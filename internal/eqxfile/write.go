package eqxfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

// Write writes leaves to w, in their order and without hyperparameters, so that
// equinox.tree_deserialise_leaves reads them into a module with the same arrays.
// It takes F16, F32 and F64.
func Write(w io.Writer, leaves []safetensors.Tensor) error {
	for _, t := range leaves {
		descr := ""
		for name, d := range dtypes {
			if d == t.DType {
				descr = name
			}
		}
		if descr == "" {
			return fmt.Errorf("eqxfile: tensor %q is %v; write float16, float32 or float64", t.Name, t.DType)
		}
		var shape strings.Builder
		for i, d := range t.Shape {
			if i > 0 {
				shape.WriteString(", ")
			}
			shape.WriteString(strconv.Itoa(d))
		}
		if len(t.Shape) == 1 {
			shape.WriteByte(',')
		}
		text := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, shape.String())
		// The values begin at a multiple of 64 bytes from the array's beginning.
		const fixed = len(magic) + 4
		text += strings.Repeat(" ", 63-(fixed+len(text))%64) + "\n"
		b := append([]byte(magic), 1, 0)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
		b = append(b, text...)
		if _, err := w.Write(append(b, t.Data...)); err != nil {
			return fmt.Errorf("eqxfile: %w", err)
		}
	}
	return nil
}
