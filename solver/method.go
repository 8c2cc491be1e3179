package solver

import (
	"fmt"
	"strings"

	"github.com/seed-5f5774c8/neuralode/tableau"
)

// Method is an explicit Runge-Kutta method of package tableau. The zero value
// is the default, Tsit5.
type Method uint8

const (
	// Tsit5 is Tsitouras' 5(4), the method to start with.
	Tsit5 Method = iota
	// Dopri5 is Dormand and Prince's 5(4) with the error weights of Shampine 1986,
	// which torchdiffeq uses.
	Dopri5
	// Dopri8 is DOP853, for tight tolerances in float64.
	Dopri8
	// Vern7 is Verner's 7(6), for tight tolerances in float64.
	Vern7
	// Bosh3 is Bogacki and Shampine's 3(2), for loose tolerances.
	Bosh3
	// HeunEuler21 is Heun's method with Euler's for the error.
	HeunEuler21
	// Fehlberg12 is Fehlberg's RKF1(2). At tolerances looser than 1e-5 its estimate is
	// far below the error, because its first-order solution is nearly one of order 2:
	// HeunEuler21 and Bosh3 are safer.
	Fehlberg12

	// The methods below have no error estimate: they need Settings.Step.

	Euler
	Midpoint
	Heun2
	Ralston2
	Heun3
	RK4
	RK4ThreeEighths
	SSPRK3
)

var methods = [...]func() *tableau.Tableau{
	Tsit5: tableau.Tsit5, Dopri5: tableau.Dopri5Shampine, Dopri8: tableau.Dopri8, Vern7: tableau.Vern7,
	Bosh3: tableau.Bosh3, HeunEuler21: tableau.HeunEuler21, Fehlberg12: tableau.Fehlberg12,
	Euler: tableau.Euler, Midpoint: tableau.Midpoint, Heun2: tableau.Heun2, Ralston2: tableau.Ralston2,
	Heun3: tableau.Heun3, RK4: tableau.RK4, RK4ThreeEighths: tableau.RK4ThreeEighths, SSPRK3: tableau.SSPRK3,
}

var methodNames = [...]string{
	Tsit5: "tsit5", Dopri5: "dopri5", Dopri8: "dopri8", Vern7: "vern7",
	Bosh3: "bosh3", HeunEuler21: "heun_euler21", Fehlberg12: "fehlberg12",
	Euler: "euler", Midpoint: "midpoint", Heun2: "heun2", Ralston2: "ralston2",
	Heun3: "heun3", RK4: "rk4", RK4ThreeEighths: "rk4_38", SSPRK3: "ssprk3",
}

// Methods lists every method, the default first.
func Methods() []Method {
	all := make([]Method, len(methods))
	for i := range all {
		all[i] = Method(i)
	}
	return all
}

// Tableau returns the method's coefficients, shared and not to be changed.
func (m Method) Tableau() *tableau.Tableau {
	if int(m) >= len(methods) {
		panic("solver: unknown Method")
	}
	return methods[m]()
}

// Adaptive reports whether the method estimates its error.
func (m Method) Adaptive() bool { return m.Tableau().Adaptive() }

func (m Method) String() string {
	if int(m) >= len(methodNames) {
		return fmt.Sprintf("Method(%d)", uint8(m))
	}
	return methodNames[m]
}

// name is the method's, or that of a tableau of the user's own.
func (s *Settings) name() string {
	if s.Tableau != s.Method.Tableau() {
		return s.Tableau.Name
	}
	return s.Method.String()
}

// ParseMethod returns the method of that name.
func ParseMethod(name string) (Method, error) {
	for m, n := range methodNames {
		if n == name {
			return Method(m), nil
		}
	}
	return 0, fmt.Errorf("solver: no method is called %q; there are %s", name, strings.Join(methodNames[:], ", "))
}
