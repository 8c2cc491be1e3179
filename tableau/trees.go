package tableau

import (
	"math"
	"strings"
)

// maxOrder is the highest order whose conditions Check generates: 1205 of them.
const maxOrder = 10

// tree is a rooted tree, [t_1, ..., t_m] in Butcher's notation: a root whose
// children are the roots of t_1, ..., t_m. τ is the tree of one vertex. Each
// stands for one elementary differential of f and hence one order condition.
type tree struct {
	name     string
	order    int     // ρ(t), the number of vertices
	gamma    float64 // γ(t) = ρ(t)·Π γ(t_i)
	children []int   // indices into the list of trees, not increasing
}

// rootedTrees returns all rooted trees up to an order, by increasing order: 1, 1,
// 2, 4, 9, 20, 48, 115, ... of each (HNW Table II.2.2).
func rootedTrees(order int) []tree {
	list := []tree{{name: "τ", order: 1, gamma: 1}}
	var children []int
	for n := 2; n <= order; n++ {
		// Choose children with n-1 vertices in all, none after its predecessor
		// in the list, so that each multiset comes once.
		var choose func(left, last int)
		choose = func(left, last int) {
			if left == 0 {
				list = append(list, graft(list, children))
				return
			}
			for i := last; i >= 0; i-- {
				if list[i].order <= left {
					children = append(children, i)
					choose(left-list[i].order, i)
					children = children[:len(children)-1]
				}
			}
		}
		choose(n-1, len(list)-1)
	}
	return list
}

func graft(list []tree, children []int) tree {
	t := tree{order: 1, gamma: 1, children: append([]int(nil), children...)}
	names := make([]string, len(children))
	for i, c := range children {
		t.order += list[c].order
		t.gamma *= list[c].gamma
		names[i] = list[c].name
	}
	t.gamma *= float64(t.order)
	t.name = "[" + strings.Join(names, ",") + "]"
	return t
}

// conditions holds the elementary weights of a set of stages,
//
//	Φ_i(τ) = 1,  Φ_i([t_1, ..., t_m]) = Π_l Σ_j a_ij·Φ_j(t_l).
//
// Weights b are of order p if Σ b_i·Φ_i(t) = 1/γ(t) for every tree up to order p
// (HNW Theorem II.2.13), given that the rows of A sum to c.
type conditions struct {
	trees []tree
	phi   [][]float64 // [tree][stage]
	size  [][]float64 // the same with |a_ij|: what rounding errors are relative to
}

// newConditions computes them for the stages whose rows are given, row i with at
// most i entries.
func newConditions(rows [][]float64, order int) *conditions {
	c := &conditions{trees: rootedTrees(order)}
	abs := cloneRows(rows)
	for _, row := range abs {
		for j := range row {
			row[j] = math.Abs(row[j])
		}
	}
	c.phi = elementaryWeights(c.trees, rows)
	c.size = elementaryWeights(c.trees, abs)
	return c
}

func elementaryWeights(trees []tree, rows [][]float64) [][]float64 {
	phi := make([][]float64, len(trees))  // Φ
	aphi := make([][]float64, len(trees)) // A·Φ
	for t := range trees {
		phi[t] = make([]float64, len(rows))
		aphi[t] = make([]float64, len(rows))
		for i, row := range rows {
			phi[t][i] = 1
			for _, child := range trees[t].children {
				phi[t][i] *= aphi[child][i]
			}
			for j, a := range row {
				aphi[t][i] += a * phi[t][j]
			}
		}
	}
	return phi
}

// sum returns Σ w_i·Φ_i of a tree, and the bound of its rounding error.
func (c *conditions) sum(t int, w []float64) (sum, bound float64) {
	for i, w := range w {
		sum += w * c.phi[t][i]
		bound += math.Abs(w) * c.size[t][i]
	}
	return sum, roundoff * bound
}

// roundoff bounds the relative error of a sum of products of coefficients. Each
// coefficient was rounded to float64, or to the 16 digits that some authors print,
// and each product of a tree of order 8 has at most 8 factors, each a sum over at
// most 16 stages; errors of either sign mostly cancel.
const roundoff = 64 * 0x1p-52
