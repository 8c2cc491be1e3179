package main

// variant is a way in which a side does the tasks.
type variant struct {
	side string
	name string // of the request
	text string // for the table
	// joint: the batch shares step sizes; else every sample has its own.
	joint bool
	// solves: its forward solve is measured; false where it is that of another variant.
	solves bool
}

// ours is the name of this library's side.
const ours = "neuralode"

// variants lists all sides, this library first, and of every side and stepping the one
// whose forward solve stands for them first. The first two are what the others are
// compared with.
var variants = []variant{
	{ours, "joint/discrete", "discrete adjoint (the default)", true, true},
	{ours, "sample/discrete", "discrete adjoint (the default)", false, true},
	{ours, "joint/continuous", "continuous adjoint", true, false},
	{"torchdiffeq", "direct", "odeint", true, true},
	{"torchdiffeq", "adjoint", "odeint_adjoint", true, false},
	{"torchdiffeq", "seminorm", "odeint_adjoint, seminorm", true, false},
	{"torchdiffeq", "direct+compile", "odeint, f compiled", true, true},
	{"torchdiffeq", "seminorm+compile", "odeint_adjoint, seminorm, f compiled", true, false},
	{"diffrax", "joint/recursive", "RecursiveCheckpointAdjoint", true, true},
	{"diffrax", "joint/seminorm", "BacksolveAdjoint, seminorm", true, false},
	{"diffrax", "sample/recursive", "vmap, RecursiveCheckpointAdjoint", false, true},
	{"torchode", "eager", "AutoDiffAdjoint", false, true},
	{"torchode", "compile", "AutoDiffAdjoint, solver compiled", false, true},
}

// baseline is this library's variant that v is compared with: the default one of the
// same stepping.
func (v variant) baseline() int {
	if v.joint {
		return 0
	}
	return 1
}

// sideNames lists the sides in the order of variants.
func sideNames() (names []string) {
	for i, v := range variants {
		if i == 0 || v.side != names[len(names)-1] {
			names = append(names, v.side)
		}
	}
	return names
}
