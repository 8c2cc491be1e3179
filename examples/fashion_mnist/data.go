package main

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const pixels, classes = 28 * 28, 10

var names = [classes]string{"T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"}

// set is a part of the data: images as pixels of mean 0 and variance about 1, row-major
// [n, pixels], and their classes.
type set struct {
	images []float32
	labels []int32
}

func (s set) len() int { return len(s.labels) }

// split returns the images before and from i on.
func (s set) split(i int) (a, b set) {
	return set{s.images[:i*pixels], s.labels[:i]}, set{s.images[i*pixels:], s.labels[i:]}
}

// load reads a part of the data, "train" or "t10k", from its two files in dir.
func load(dir, part string) (set, error) {
	raw, err := readIDX(filepath.Join(dir, part+"-images-idx3-ubyte.gz"), 28, 28)
	if err != nil {
		return set{}, err
	}
	labels, err := readIDX(filepath.Join(dir, part+"-labels-idx1-ubyte.gz"))
	if err != nil {
		return set{}, err
	}
	if len(raw) != pixels*len(labels) {
		return set{}, fmt.Errorf("%s has %d images and %d labels", part, len(raw)/pixels, len(labels))
	}
	const mean, deviation = 0.2860, 0.3530 // of the training images' pixels in 0..1
	s := set{make([]float32, len(raw)), make([]int32, len(labels))}
	for i, v := range raw {
		s.images[i] = (float32(v)/255 - mean) / deviation
	}
	for i, c := range labels {
		if c >= classes {
			return set{}, fmt.Errorf("%s: label %d is %d; there are %d classes", part, i, c, classes)
		}
		s.labels[i] = int32(c)
	}
	return s, nil
}

// readIDX reads a gzipped file of bytes in the IDX format: the bytes 0, 0, 8 (for bytes)
// and the number of sizes, the sizes as big-endian 32-bit numbers, and the data. All sizes
// after the first must be those given.
func readIDX(path string, item ...uint32) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: Fashion-MNIST is not there; on Debian and Ubuntu, apt install dataset-fashion-mnist; elsewhere give -data the folder with the four files of https://github.com/zalandoresearch/fashion-mnist", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("%s: %w; get the file again", path, err)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return fail(err)
	}
	var magic [4]byte
	sizes := make([]uint32, 1+len(item))
	if err := errors.Join(binary.Read(z, binary.BigEndian, &magic), binary.Read(z, binary.BigEndian, sizes)); err != nil {
		return fail(err)
	}
	if magic != [4]byte{0, 0, 8, byte(len(sizes))} {
		return fail(fmt.Errorf("begins with %v: not bytes of %d dimensions in the IDX format", magic, len(sizes)))
	}
	size := int64(sizes[0])
	for i, n := range item {
		if sizes[1+i] != n {
			return fail(fmt.Errorf("items of size %d, want %d", sizes[1:], item))
		}
		size *= int64(n)
	}
	data, err := io.ReadAll(io.LimitReader(z, size+1))
	if err != nil {
		return fail(err)
	}
	if int64(len(data)) != size {
		return fail(fmt.Errorf("does not hold %d items", sizes[0]))
	}
	return data, nil
}
