package mlp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// specVersion is the version of a Spec's JSON. A reader refuses a newer one.
const specVersion = 1

// specJSON is the form of a Spec in files.
type specJSON struct {
	Version     int      `json:"version"`
	Widths      []int    `json:"widths"`
	Activations []string `json:"activations"`
	Time        string   `json:"time"`
	Input       string   `json:"input"`
}

// MarshalJSON writes a valid Spec as, for example,
//
//	{"version":1,"widths":[2,50,2],"activations":["tanh","identity"],"time":"none","input":"cube"}
func (s Spec) MarshalJSON() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	j := specJSON{Version: specVersion, Widths: s.Widths, Time: s.Time.String(), Input: s.Input.String()}
	for _, a := range s.Activations {
		j.Activations = append(j.Activations, a.String())
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes and fails, leaving s as it was, on
// anything else: an unknown key or name, a key given twice, another version, or
// an invalid Spec.
func (s *Spec) UnmarshalJSON(b []byte) error {
	j, err := decodeSpec(b)
	if err != nil {
		return err
	}
	if j.Version != specVersion {
		return fmt.Errorf("mlp: the Spec has version %d, this program reads version %d; use the program that wrote it", j.Version, specVersion)
	}
	v := Spec{Widths: j.Widths}
	for i, name := range j.Activations {
		a, err := ParseActivation(name)
		if err != nil {
			return fmt.Errorf("mlp: layer %d: %w", i, err)
		}
		v.Activations = append(v.Activations, a)
	}
	if v.Time, err = ParseTime(j.Time); err != nil {
		return err
	}
	if v.Input, err = ParseInput(j.Input); err != nil {
		return err
	}
	if err := v.Validate(); err != nil {
		return err
	}
	*s = v
	return nil
}

// decodeSpec reads the object key by key: json.Unmarshal would take keys in any
// case, and the last of two equal ones.
func decodeSpec(b []byte) (j specJSON, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	fail := func(err error) (specJSON, error) {
		return j, fmt.Errorf("mlp: the Spec is not the JSON that this version writes, at byte %d: %w; write the file again", dec.InputOffset(), err)
	}
	if !json.Valid(b) {
		return fail(errors.New("invalid JSON"))
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fail(errors.New("no object"))
	}
	fields := map[string]any{
		"version":     &j.Version,
		"widths":      &j.Widths,
		"activations": &j.Activations,
		"time":        &j.Time,
		"input":       &j.Input,
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return fail(err)
		}
		name, _ := key.(string)
		field, ok := fields[name]
		if !ok {
			return fail(fmt.Errorf("the key %.40q is unknown or given twice", name))
		}
		delete(fields, name)
		if err := dec.Decode(field); err != nil {
			return fail(err)
		}
	}
	return j, nil
}
