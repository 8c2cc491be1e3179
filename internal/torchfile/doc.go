// Package torchfile reads and writes the files of torch.save that hold plain
// tensors: a state_dict, or dicts and lists of tensors and numbers.
//
// Such a file is a ZIP archive, not compressed, with one folder:
//
//	NAME/data.pkl     the dict as a pickle of protocol 2
//	NAME/data/KEY     the bytes of one storage, little-endian, for each KEY
//	NAME/byteorder    "little"
//	NAME/version      "3"
//
// A pickle is a program that may call anything in Python. [Read] runs none of it:
// it knows the opcodes that torch.save writes for tensors, and of classes only
// OrderedDict, the storages and the functions that rebuild a tensor. All else is
// refused by name. The format is that of torch/serialization.py and, for opcodes,
// of Python's pickletools.
package torchfile
