package mlp

import (
	"fmt"
	"strings"
)

// Enumerations print and parse by the names in a table, index by value.

func enumString[E ~uint8](typ string, names []string, e E) string {
	if int(e) < len(names) {
		return names[e]
	}
	return fmt.Sprintf("%s(%d)", typ, uint8(e))
}

func enumParse[E ~uint8](what string, names []string, s string) (E, error) {
	for i, name := range names {
		if s == name {
			return E(i), nil
		}
	}
	return 0, fmt.Errorf("mlp: %s %.40q unknown; use one of %s", what, s, strings.Join(names, ", "))
}

func enumMarshal[E ~uint8](what string, names []string, e E) ([]byte, error) {
	if err := enumCheck(what, names, e); err != nil {
		return nil, err
	}
	return []byte(names[e]), nil
}

func enumCheck[E ~uint8](what string, names []string, e E) error {
	if int(e) >= len(names) {
		return fmt.Errorf("mlp: %s %d unknown; use one of %s", what, uint8(e), strings.Join(names, ", "))
	}
	return nil
}
