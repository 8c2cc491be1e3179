package problems

// Reference is what another implementation's solve of a problem cost and how far
// off it ended.
type Reference struct {
	Problem     string
	Tol         float64 // rtol = atol
	Evaluations int64
	Error       float64 // the largest of a component of z(T1)
}

// Torchdiffeq is what torchdiffeq's dopri5 does in float64 on PyTorch 1.13.
func Torchdiffeq() []Reference {
	return []Reference{
		{"A1", 1e-3, 68, 7e-4}, {"A1", 1e-6, 152, 5e-8}, {"A1", 1e-9, 494, 9e-11},
		{"A3", 1e-3, 140, 2e-3}, {"A3", 1e-6, 464, 5e-6}, {"A3", 1e-9, 1490, 2e-8},
		{"B1", 1e-3, 320, 7e-2}, {"B1", 1e-6, 836, 3e-5}, {"B1", 1e-9, 2726, 3e-8},
		{"D1", 1e-3, 284, 8e-1}, {"D1", 1e-6, 428, 2e-3}, {"D1", 1e-9, 1592, 3e-7},
		{"E2", 1e-3, 404, 2e-1}, {"E2", 1e-6, 1118, 3e-5}, {"E2", 1e-9, 3392, 8e-8},
	}
}
