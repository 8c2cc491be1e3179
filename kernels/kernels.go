// Package kernels holds the CUDA kernels, compiled to PTX.
//
// The sources are the .cu and .cuh files beside this one, a family a .cu file; `make
// kernels` compiles each for two targets, those on tensor cores for the higher one alone,
// the text of which is kept in ptx/ and becomes part of the program. A driver compiles it for its device, so that a user needs
// no compiler of CUDA's.
package kernels

import (
	"embed"
	"fmt"
)

//go:embed ptx/*.ptx *.cuh
var files embed.FS

// Targets are the compute capabilities that the kernels are compiled for, the highest
// first, as in sm_80.
var targets = [...]int{80, 60}

// Headers returns the sources that kernels include, by name, for those that are compiled
// when the program runs.
func Headers() map[string]string {
	list, err := files.ReadDir(".")
	if err != nil {
		panic(err) // they are part of the program
	}
	headers := map[string]string{}
	for _, f := range list {
		if !f.IsDir() {
			text, err := files.ReadFile(f.Name())
			if err != nil {
				panic(err)
			}
			headers[f.Name()] = string(text)
		}
	}
	return headers
}

// PTX returns a family's kernels for the highest target that a device of the given
// compute capability, as in sm_80, runs.
func PTX(family string, capability int) ([]byte, error) {
	for _, target := range targets {
		if target <= capability {
			return files.ReadFile(fmt.Sprintf("ptx/%s.sm_%d.ptx", family, target))
		}
	}
	return nil, fmt.Errorf("kernels: a device of compute capability %d.%d is older than the kernels, which need %d.%d",
		capability/10, capability%10, targets[len(targets)-1]/10, targets[len(targets)-1]%10)
}
