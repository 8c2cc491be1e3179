// Package safetensors reads and writes the safetensors file format, strictly.
//
// A file is
//
//	8 bytes     n, the length of the header, little-endian
//	n bytes     the header: one JSON object, UTF-8, padded with spaces
//	the rest    the tensors' values, little-endian, row-major, without gaps
//
// and the header maps each tensor's name to its type, its shape and the range
// of its bytes counted from the end of the header,
//
//	{"__metadata__": {"key": "text"},
//	 "layers.0.bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}
//
// The format is specified at
// https://github.com/huggingface/safetensors#format. Files are exchanged both
// ways with the safetensors package of Python. A file that breaks any rule of
// the format is refused with a [*FormatError] that says where; nothing of it is
// returned.
package safetensors
