package main

import (
	"io"

	"golang.org/x/term"
)

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}
