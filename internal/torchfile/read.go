package torchfile

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
)

// The storage classes that hold floating-point numbers.
var storages = map[class]safetensors.DType{
	"torch FloatStorage":    safetensors.F32,
	"torch DoubleStorage":   safetensors.F64,
	"torch HalfStorage":     safetensors.F16,
	"torch BFloat16Storage": safetensors.BF16,
}

const (
	maxDepth  = 64      // of dicts and lists in each other
	maxNodes  = 1 << 20 // dicts, lists and their items, each time one is met
	maxKey    = 1024    // bytes of a key
	maxCopies = 16      // bytes of strided tensors for each byte of the file
)

// Read returns the tensors of a file of torch.save, in their order there. Those
// of a dict in a dict, or in a list, have their keys joined with dots, as in
// "model.net.0.weight"; numbers and text beside them are left out. Values are
// row-major whatever the strides; a tensor may share b's memory, and its Offset
// is 0.
//
// It fails if b is no such file, damaged or of the format before PyTorch 1.6, and
// where anything but floating-point tensors, numbers, text, dicts and lists is in
// it: a pickled Module, an integer or sparse tensor, a tensor that reaches beyond
// its storage.
func Read(b []byte) ([]safetensors.Tensor, error) {
	r := &reader{budget: maxCopies * uint64(len(b))}
	tensors, err := r.read(b)
	if err != nil {
		return nil, fmt.Errorf("torchfile: %w", err)
	}
	return tensors, nil
}

type reader struct {
	files   map[string]*zip.File
	folder  string
	bytes   map[string][]byte // storages by key
	tensors []safetensors.Tensor
	budget  uint64 // bytes that copies of strided tensors may still take
	nodes   int
}

// A storage in the archive, and a tensor in it.
type (
	storage struct {
		dtype safetensors.DType
		data  []byte
	}
	tensor struct {
		dtype safetensors.DType
		shape []int
		data  []byte
	}
)

func (r *reader) read(b []byte) ([]safetensors.Tensor, error) {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		if bytes.HasPrefix(b, []byte("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")) {
			return nil, errors.New("the file has the format before PyTorch 1.6; load it in a newer PyTorch and torch.save it again")
		}
		return nil, fmt.Errorf("this is no file of torch.save, or a damaged one: %w", err)
	}
	r.files = make(map[string]*zip.File, len(z.File))
	found := false
	for _, f := range z.File {
		if _, twice := r.files[f.Name]; twice {
			return nil, fmt.Errorf("the archive holds %.80q twice; the file is damaged", f.Name)
		}
		r.files[f.Name] = f
		if folder, ok := strings.CutSuffix(f.Name, "/data.pkl"); ok && !strings.Contains(folder, "/") {
			if found {
				return nil, errors.New("the archive holds two pickles; the file is damaged")
			}
			r.folder, found = folder+"/", true
		}
	}
	if !found {
		return nil, errors.New("the archive holds no data.pkl; save model.state_dict() with torch.save")
	}
	if _, ok := r.files[r.folder+"constants.pkl"]; ok {
		return nil, errors.New("this is a TorchScript archive; save model.state_dict() with torch.save")
	}
	if _, ok := r.files[r.folder+"byteorder"]; ok {
		order, err := r.file("byteorder")
		if err != nil {
			return nil, err
		}
		if string(order) != "little" {
			return nil, fmt.Errorf("the file's byte order is %.20q; save it on a little-endian machine", order)
		}
	}
	pickle, err := r.file("data.pkl")
	if err != nil {
		return nil, err
	}
	r.bytes = make(map[string][]byte)
	m := &machine{b: pickle, memo: make(map[uint32]any), persistent: r.storage, call: r.call}
	root, err := m.run()
	if err != nil {
		return nil, err
	}
	if err := r.collect("", root, 0); err != nil {
		return nil, err
	}
	return r.tensors, nil
}

// file returns the content of a file of the archive, whose check sum is verified.
func (r *reader) file(name string) ([]byte, error) {
	f, ok := r.files[r.folder+name]
	if !ok {
		return nil, fmt.Errorf("the archive lacks %.80q; the file is damaged", name)
	}
	// Not compressed, so that no file is larger than the archive.
	if f.Method != zip.Store || f.UncompressedSize64 != f.CompressedSize64 {
		return nil, fmt.Errorf("%.80q is compressed, which torch.save never does; save it again", name)
	}
	open, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("%.80q: %w; the file is damaged", name, err)
	}
	defer open.Close()
	data, err := io.ReadAll(open)
	if err != nil {
		return nil, fmt.Errorf("%.80q: %w; the file is damaged", name, err)
	}
	return data, nil
}

// storage finds what a persistent id names:
// ("storage", class, key, device, number of elements).
func (r *reader) storage(id tuple) (any, error) {
	if len(id) != 5 || id[0] != "storage" {
		return nil, errors.New("a reference to something other than a storage; save model.state_dict() with torch.save")
	}
	name, isClass := id[1].(class)
	key, isText := id[2].(string)
	n, isInt := id[4].(int64)
	if !isClass || !isText || !isInt {
		return nil, errors.New("a malformed reference to a storage; the file is damaged")
	}
	dtype, ok := storages[name]
	if !ok {
		return nil, fmt.Errorf("%.80q is no storage of floating-point numbers; save float16, bfloat16, float32 or float64 tensors alone", name)
	}
	data, ok := r.bytes[key]
	if !ok {
		var err error
		if data, err = r.file("data/" + key); err != nil {
			return nil, err
		}
		r.bytes[key] = data
	}
	if size := int64(dtype.Size()); n < 0 || n > int64(len(data))/size || n*size != int64(len(data)) {
		return nil, fmt.Errorf("storage %.80q has %d bytes, not %d elements of %v; the file is damaged", key, len(data), n, dtype)
	}
	return storage{dtype, data}, nil
}

// call is what the classes and functions return that a state_dict needs.
func (r *reader) call(f class, args tuple) (any, error) {
	switch f {
	case "collections OrderedDict":
		if len(args) != 0 {
			return nil, errors.New("an OrderedDict with arguments; save model.state_dict() with torch.save")
		}
		return &dict{}, nil
	case "torch._utils _rebuild_tensor_v2": // storage, offset, size, stride, requires_grad, hooks
		if len(args) < 6 {
			return nil, errors.New("a tensor with too few arguments; the file is damaged")
		}
		s, ok := args[0].(storage)
		offset, isInt := args[1].(int64)
		size, err := integers(args[2])
		stride, err2 := integers(args[3])
		if !ok || !isInt || err != nil || err2 != nil || len(size) != len(stride) {
			return nil, errors.New("a tensor with malformed arguments; the file is damaged")
		}
		return r.rebuild(s, offset, size, stride)
	case "torch._utils _rebuild_parameter": // tensor, requires_grad, hooks
		if len(args) != 3 {
			return nil, errors.New("a parameter with too few arguments; the file is damaged")
		}
		if t, ok := args[0].(tensor); ok {
			return t, nil
		}
		return nil, errors.New("a parameter that is no tensor; the file is damaged")
	}
	return nil, fmt.Errorf("the file holds a %.80q, which is not read; save model.state_dict() with torch.save", strings.Replace(string(f), " ", ".", 1))
}

func integers(v any) ([]int64, error) {
	t, ok := v.(tuple)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	out := make([]int64, len(t))
	for i, x := range t {
		if out[i], ok = x.(int64); !ok || out[i] < 0 {
			return nil, errors.ErrUnsupported
		}
	}
	return out, nil
}

// rebuild makes the values row-major.
func (r *reader) rebuild(s storage, offset int64, size, stride []int64) (any, error) {
	t := tensor{dtype: s.dtype, shape: make([]int, len(size))}
	for i, d := range size {
		t.shape[i] = int(d)
	}
	if slices.Contains(size, 0) {
		return t, nil
	}
	width := uint64(s.dtype.Size())
	total := uint64(len(s.data)) / width
	n, last := uint64(1), uint64(offset) // the number of elements; the last one's place
	contiguous := true
	for i := len(size) - 1; i >= 0; i-- {
		if size[i] == 1 {
			continue // whatever its stride
		}
		contiguous = contiguous && uint64(stride[i]) == n
		// No product wraps, since hi is looked at, and no sum, since last ≤ total.
		hi, reach := bits.Mul64(uint64(size[i]-1), uint64(stride[i]))
		if hi != 0 || reach >= total || last >= total {
			return nil, beyond(size, total)
		}
		last += reach
		if hi, n = bits.Mul64(n, uint64(size[i])); hi != 0 {
			return nil, beyond(size, total)
		}
	}
	if offset < 0 || last >= total {
		return nil, beyond(size, total)
	}
	if n > total {
		return nil, fmt.Errorf("a tensor of shape %v repeats elements of its storage; save tensor.contiguous()", size)
	}
	if contiguous {
		t.data = s.data[uint64(offset)*width : (uint64(offset)+n)*width]
		return t, nil
	}
	// Many views of one storage could otherwise take any amount of memory.
	if n*width > r.budget {
		return nil, errors.New("the views of storages in it take much more memory than the file; save tensor.contiguous()")
	}
	r.budget -= n * width
	t.data = make([]byte, 0, n*width)
	index := make([]int64, len(size))
	for range n {
		at := offset
		for i, k := range index {
			at += k * stride[i]
		}
		t.data = append(t.data, s.data[uint64(at)*width:(uint64(at)+1)*width]...)
		for i := len(index) - 1; i >= 0; i-- {
			if index[i]++; index[i] < size[i] {
				break
			}
			index[i] = 0
		}
	}
	return t, nil
}

func beyond(size []int64, total uint64) error {
	return fmt.Errorf("a tensor of shape %v reaches beyond its storage of %d elements; the file is damaged", size, total)
}

// collect appends the tensors in v, which is found under name.
func (r *reader) collect(name string, v any, depth int) error {
	if r.nodes++; depth > maxDepth || r.nodes > maxNodes {
		return errors.New("the dicts in it are too deep or too many; save model.state_dict() with torch.save")
	}
	join := func(key string) string {
		if name == "" {
			return key
		}
		return name + "." + key
	}
	switch v := v.(type) {
	case nil, bool, int64, float64, string:
	case tensor:
		r.tensors = append(r.tensors, safetensors.Tensor{Name: name, DType: v.dtype, Shape: v.shape, Data: v.data})
	case *dict:
		for i, k := range v.keys {
			var key string
			switch k := k.(type) {
			case string:
				key = k
			case int64:
				key = strconv.FormatInt(k, 10)
			default:
				return fmt.Errorf("a key of %.80q is neither text nor an integer; save model.state_dict() with torch.save", name)
			}
			if len(key) > maxKey {
				return fmt.Errorf("a key of %d bytes, %.80q…; the limit is %d", len(key), key, maxKey)
			}
			if err := r.collect(join(key), v.values[i], depth+1); err != nil {
				return err
			}
		}
	case *list:
		return r.each(join, v.items, depth)
	case tuple:
		return r.each(join, v, depth)
	default:
		return fmt.Errorf("%.80q is neither a tensor nor a number; save model.state_dict() with torch.save", name)
	}
	return nil
}

func (r *reader) each(join func(string) string, items []any, depth int) error {
	for i, x := range items {
		if err := r.collect(join(strconv.Itoa(i)), x, depth+1); err != nil {
			return err
		}
	}
	return nil
}
