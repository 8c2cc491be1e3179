// Package expr makes right-hand sides out of text,
//
//	dz/dt = f(t, z; θ)
//
// with all the derivatives that gradients need, on the CPU and, compiled when the program
// runs, on a CUDA device:
//
//	f, err := expr.Parse([]string{"sigma*(y-x)", "x*(rho-z) - y", "x*y - beta*z"}, expr.Settings[float32]{
//		State:  []string{"x", "y", "z"},
//		Params: []string{"sigma", "rho", "beta"},
//		Theta:  []float32{10, 28, 8. / 3},
//	})
//
// An equation is made of numbers, names of components of the state and of parameters,
// t, pi, + - * / ^, parentheses, and the functions
//
//	exp expm1 log log1p sqrt sin cos tan asin acos atan sinh cosh tanh abs
//	atan2(y, x) pow(x, y) hypot(x, y) min(x, y) max(x, y)
//	if(x < y, value, otherwise)
//
// with the meanings, and the slopes at kinks, that package field gives them; < may be
// > too. x^y is pow(x, y), binds to the right and more tightly than a sign in front of
// it; powers with small whole exponents are products. A product with a constant 0 is 0,
// whatever the other factor.
//
// A constant that differs from sample to sample is a component of the state with the
// equation "0": its initial value is the constant, and the gradient with respect to it
// is that of the initial state.
//
// The derivatives are exact: each equation becomes a graph of operations, in which equal
// ones are one, and the products are graphs made from it by the chain rule, forwards and
// backwards (Griewank & Walther 2008, Evaluating Derivatives, sections 3.1 and 3.2).
// Second derivatives are forwards over backwards.
package expr
