// Package eqxfile reads and writes the leaves of an Equinox module, as
// equinox.tree_serialise_leaves writes them.
//
// Such a file is a sequence of NumPy arrays in the form of .npy, one for each
// array of the module, in the order of its fields. By a convention of Equinox's
// documentation a line of JSON, the hyperparameters, may come first. Names are
// not in the file. The form of an array is that of numpy/lib/format.py:
//
//	6 bytes     "\x93NUMPY"
//	2 bytes     the version, 1.0 to 3.0
//	2, 4 bytes  n, the length of the header, little-endian; 4 bytes from 2.0 on
//	n bytes     a Python dict: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
//	the rest    the values
package eqxfile
