// Package statedict turns named tensors, as PyTorch's state_dict and Equinox's
// leaves are, into a multilayer perceptron and back.
//
// A layer is a weight "NAME.weight" of shape [out, in] with, usually, a bias
// "NAME.bias" of shape [out]. The order of the layers is that of the numbers in
// their names, if the names differ in these alone; else the one order in which
// every layer takes what the one before returns. Shapes also tell whether the
// time is a further column of the first layer or of each. What neither names nor
// shapes decide is an error that says which setting does.
package statedict
