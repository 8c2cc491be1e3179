package torchfile

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

// Write writes the tensors to w as torch.save writes a state_dict: an OrderedDict
// that torch.load reads, also with weights_only. The same tensors give the same
// bytes. It takes F16, BF16, F32 and F64, and refuses names given twice and
// tensors of more than 2³¹-1 elements before anything is written.
func Write(w io.Writer, tensors []safetensors.Tensor) error {
	pickle, err := encode(tensors)
	if err != nil {
		return fmt.Errorf("torchfile: %w", err)
	}
	z := zip.NewWriter(w)
	add := func(name string, data []byte) {
		if err != nil {
			return
		}
		// Raw, as only then sizes and check sum precede the data.
		var f io.Writer
		f, err = z.CreateRaw(&zip.FileHeader{
			Name: "archive/" + name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(data),
			CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)),
		})
		if err == nil {
			_, err = f.Write(data)
		}
	}
	add("data.pkl", pickle)
	add("byteorder", []byte("little"))
	for i, t := range tensors {
		add("data/"+strconv.Itoa(i), t.Data)
	}
	add("version", []byte("3\n"))
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return fmt.Errorf("torchfile: %w", err)
	}
	return nil
}

// encode is the pickle of an OrderedDict of tensors, row-major, each in a storage
// of its own.
func encode(tensors []safetensors.Tensor) ([]byte, error) {
	var b bytes.Buffer
	op := func(codes ...byte) { b.Write(codes) }
	integer := func(v int) {
		op(opInt4)
		b.Write(binary.LittleEndian.AppendUint32(nil, uint32(v)))
	}
	text := func(s string) {
		op(opText)
		b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
		b.WriteString(s)
	}
	global := func(module, name string) { b.WriteString("c" + module + "\n" + name + "\n") }
	integers := func(v []int) {
		op(opMark)
		for _, x := range v {
			integer(x)
		}
		op(opTuple)
	}
	orderedDict := func() {
		global("collections", "OrderedDict")
		op(opEmptyTuple, opReduce)
	}

	op(opProto, 2)
	orderedDict()
	op(opMark)
	seen := make(map[string]bool)
	for i, t := range tensors {
		var class string
		for c, d := range storages {
			if d == t.DType {
				class = string(c[len("torch "):])
			}
		}
		n := len(t.Data) / max(1, t.DType.Size())
		switch {
		case class == "":
			return nil, fmt.Errorf("tensor %q is %v; write floating-point numbers", t.Name, t.DType)
		case seen[t.Name]:
			return nil, fmt.Errorf("two tensors are named %q; rename one", t.Name)
		case t.Len() != n || n > math.MaxInt32:
			return nil, fmt.Errorf("tensor %q has shape %v and %d elements; give the shape of its values, below 2³¹", t.Name, t.Shape, n)
		}
		seen[t.Name] = true
		strides := make([]int, len(t.Shape))
		for j, s := len(strides)-1, 1; j >= 0; j-- {
			strides[j] = s
			s *= max(1, t.Shape[j])
		}

		text(t.Name)
		global("torch._utils", "_rebuild_tensor_v2")
		op(opMark)
		op(opMark)
		text("storage")
		global("torch", class)
		text(strconv.Itoa(i))
		text("cpu")
		integer(n)
		op(opTuple, opPersID)
		integer(0) // offset
		integers(t.Shape)
		integers(strides)
		op(opFalse) // requires_grad
		orderedDict()
		op(opTuple, opReduce)
	}
	op(opSetItems, opStop)
	return b.Bytes(), nil
}
