package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/seed-5f5774c8/neuralode/internal/atomicfile"
	"github.com/seed-5f5774c8/neuralode/internal/eqxfile"
	"github.com/seed-5f5774c8/neuralode/internal/modelfile"
	"github.com/seed-5f5774c8/neuralode/internal/safetensors"
	"github.com/seed-5f5774c8/neuralode/internal/statedict"
	"github.com/seed-5f5774c8/neuralode/internal/table"
	"github.com/seed-5f5774c8/neuralode/internal/torchfile"
	"github.com/seed-5f5774c8/neuralode/mlp"
)

// conversion holds the flags of convert.
type conversion struct {
	activation, last, input, time, precision, names string
	timeFirst                                       bool
	match                                           statedict.Settings
}

// conversionReport is what convert prints.
type conversionReport struct {
	In       string           `json:"in"`
	Out      string           `json:"out"`
	Spec     mlp.Spec         `json:"spec"`
	Formula  string           `json:"formula"`
	DType    string           `json:"dtype"`
	Tensors  []statedict.Line `json:"tensors"`
	Warnings []string         `json:"warnings,omitempty"`
}

func (a *app) convertCommand() *cobra.Command {
	c := &conversion{}
	cmd := &cobra.Command{
		Use:   "convert IN OUT",
		Short: "Convert a model from and to PyTorch, safetensors and Equinox",
		Long: `Convert reads the multilayer perceptron in IN and writes it to OUT. The endings of
the names tell the formats:

  .safetensors   a model of neuralode, or any state_dict; the folder of a run is one
  .pt, .pth      a state_dict of PyTorch, or a checkpoint that holds one
  .eqx           the leaves of an equinox.nn.MLP, or of a module that holds one

The layers are the tensors NAME.weight and NAME.bias, in the order of the numbers in
their names; the report says which tensor went where and which were left over. What
names and shapes do not tell, flags do: activations are in none of the foreign files,
and no scaling of states and times, which .safetensors of neuralode alone keep.`,
		Example: `  neuralode convert net.pt model.safetensors --activation tanh
  neuralode convert checkpoint.pt model.safetensors --activation silu --prefix model.func
  neuralode convert run net.pt --names 'net.{2i}'
  neuralode convert mlp.eqx model.safetensors --activation softplus`,
		Args: positional("IN", "OUT"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.convert(cmd, c, modelPath(args[0]), args[1]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&c.activation, "activation", "", "activation of the hidden layers: "+names(mlp.Activations()))
	f.StringVar(&c.last, "last-activation", "identity", "activation of the last layer")
	f.StringVar(&c.input, "input", "identity", "map of the state before the first layer: identity or cube")
	f.StringVar(&c.time, "time", "", "layers that see the time: none, input or every_layer (by default, by the shapes)")
	f.BoolVar(&c.timeFirst, "time-first", false, "the time is the first column of foreign weights, not the last")
	f.StringVar(&c.match.Prefix, "prefix", "", "read the tensors whose names begin with this and a dot")
	f.StringSliceVar(&c.match.Layers, "layers", nil, "names of the layers in their order, without the prefix")
	f.StringSliceVar(&c.match.Ignore, "ignore", nil, "names that may be left over; * stands for anything")
	f.StringVar(&c.names, "names", "", "names of the layers to write, {i} or {2i} for the number (default "+statedict.DefaultNames+")")
	f.StringVar(&c.precision, "precision", "", "float32 or float64 (by default, that of IN)")
	return cmd
}

// formatOf is the ending of a name, checked.
func formatOf(path string) (string, error) {
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".safetensors", ".pt", ".eqx":
		return ext, nil
	case ".pth":
		return ".pt", nil
	default:
		return "", usagef("%q has the ending %q; convert knows .safetensors, .pt, .pth and .eqx", path, ext)
	}
}

func (a *app) convert(cmd *cobra.Command, c *conversion, in, out string) error {
	from, err := formatOf(in)
	if err != nil {
		return err
	}
	to, err := formatOf(out)
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"", "float32", "float64"}, c.precision) {
		return usagef("--precision is %q; give float32 or float64", c.precision)
	}
	b, err := os.ReadFile(in)
	if err != nil {
		return table.Explain(in, err)
	}
	src, err := readTensors(b, from)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	report := conversionReport{In: in, Out: out}
	m, lines, err := c.model(cmd, src)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	kept := to == ".safetensors" && c.names == ""
	if src.meta != nil && !kept {
		src.left = append(src.left, modelfile.Key)
	}
	for _, key := range src.left {
		report.Warnings = append(report.Warnings, fmt.Sprintf("the metadata %q of %s is not in %s; what it says of inputs and outputs, such as how data were scaled, has to be done by hand", key, in, out))
	}
	if src.own {
		// Nothing was mapped on the way in; the report is about the way out.
		lines = nil
	}
	wide := c.precision == "float64" || c.precision == "" && statedict.Wide(src.tensors)
	report.DType = "float32"
	if wide {
		report.DType = "float64"
		err = writeModel(m, c, to, out, src.meta, &lines)
	} else {
		err = writeModel(mlp.Convert[float32](m), c, to, out, src.meta, &lines)
	}
	if err != nil {
		return unwritten(out, err)
	}
	report.Spec, report.Formula, report.Tensors = m.Spec, statedict.Formula(m.Spec), lines
	if a.json {
		return a.printJSON(report)
	}
	return report.print(a.out)
}

// source is what a file holds.
type source struct {
	tensors []safetensors.Tensor
	ordered bool   // by definition
	own     bool   // written by package mlp
	spec    string // of package mlp
	meta    *modelfile.Meta
	left    []string       // keys of other metadata
	hyper   map[string]any // hyperparameters of Equinox
}

func readTensors(b []byte, format string) (source, error) {
	switch format {
	case ".pt":
		tensors, err := torchfile.Read(b)
		return source{tensors: tensors, ordered: true}, err
	case ".eqx":
		f, err := eqxfile.Read(b)
		if err != nil {
			return source{}, err
		}
		return source{tensors: statedict.Named(f.Leaves), ordered: true, hyper: f.Hyperparameters}, nil
	}
	f, err := safetensors.Read(b)
	if err != nil {
		return source{}, err
	}
	s := source{tensors: f.Tensors}
	for key, text := range f.Metadata {
		switch key {
		case mlp.SpecKey:
			s.own, s.spec = true, text
		case modelfile.Key:
			s.meta = &modelfile.Meta{}
			if err := json.Unmarshal([]byte(text), s.meta); err != nil {
				return s, fmt.Errorf("metadata %q: %w", key, err)
			}
		case "format": // "pt", of Hugging Face's writers
		default:
			s.left = append(s.left, key)
		}
	}
	slices.Sort(s.left)
	return s, nil
}

// model is the model in src, in float64, which holds all that a file can.
func (c *conversion) model(cmd *cobra.Command, src source) (*mlp.Model[float64], []statedict.Line, error) {
	set := c.match
	set.TimeFirst, set.Ordered = c.timeFirst, src.ordered
	var err error
	if src.own {
		for _, name := range []string{"activation", "last-activation", "input", "time", "prefix", "layers", "ignore"} {
			if cmd.Flags().Changed(name) {
				return nil, nil, usagef("--%s is about foreign files, but this is a model of neuralode, whose metadata say all of it; leave it out", name)
			}
		}
		var spec mlp.Spec
		if err := spec.UnmarshalJSON([]byte(src.spec)); err != nil {
			return nil, nil, err
		}
		set = statedict.Settings{Hidden: mlp.Identity, Time: &spec.Time, Input: spec.Input}
		m, lines, err := statedict.Import[float64](src.tensors, set)
		if err != nil {
			return nil, nil, err
		}
		m.Spec.Activations = spec.Activations
		if !m.Spec.Equal(spec) {
			return nil, nil, fmt.Errorf("its tensors are not those of its metadata %s; the file is damaged", src.spec)
		}
		return m, lines, nil
	}
	if c.time != "" {
		t, err := mlp.ParseTime(c.time)
		if err != nil {
			return nil, nil, usageError{err}
		}
		set.Time = &t
	}
	if set.Input, err = mlp.ParseInput(c.input); err != nil {
		return nil, nil, usageError{err}
	}
	if set.Last, err = mlp.ParseActivation(c.last); err != nil {
		return nil, nil, usageError{err}
	}
	hidden := c.activation
	if text, ok := src.hyper["activation"].(string); ok && hidden == "" {
		hidden = text
	}
	if hidden != "" {
		if set.Hidden, err = mlp.ParseActivation(hidden); err != nil {
			return nil, nil, usageError{err}
		}
	}
	m, lines, err := statedict.Import[float64](src.tensors, set)
	if err != nil {
		return nil, nil, err
	}
	if hidden == "" && m.Spec.NumLayers() > 1 {
		return nil, nil, usagef("the file does not say which activation the hidden layers have; give --activation, one of %s", names(mlp.Activations()))
	}
	return m, lines, nil
}

// writeModel writes m to the file path. It sets lines to what went where, unless they
// say it already.
func writeModel[T mlp.Float](m *mlp.Model[T], c *conversion, format, path string, meta *modelfile.Meta, lines *[]statedict.Line) error {
	for i, v := range m.Theta {
		if math.IsInf(float64(v), 0) {
			return fmt.Errorf("parameter %d is beyond the range of float32; give --precision float64", i)
		}
	}
	if format == ".safetensors" && c.names == "" {
		if *lines == nil {
			_, *lines, _ = statedict.Export(m, statedict.DefaultNames, false)
		}
		if meta == nil {
			return m.SaveFile(path)
		}
		return modelfile.Save(path, m, *meta)
	}
	names := c.names
	if names == "" {
		names = statedict.DefaultNames
	}
	tensors, written, err := statedict.Export(m, names, c.timeFirst)
	if err != nil {
		return usageError{err}
	}
	if *lines == nil {
		*lines = written
	} else {
		for i, l := range *lines { // from foreign to foreign
			if l.To != "" {
				(*lines)[i].To = tensors[slices.IndexFunc(written, func(w statedict.Line) bool { return w.From == l.To })].Name
				(*lines)[i].Note = ""
			}
		}
	}
	switch format {
	case ".safetensors":
		return safetensors.WriteFile(path, tensors, nil)
	case ".pt":
		return atomicfile.Write(path, func(w io.Writer) error { return torchfile.Write(w, tensors) })
	}
	return atomicfile.Write(path, func(w io.Writer) error { return eqxfile.Write(w, tensors) })
}

func (r *conversionReport) print(w io.Writer) error {
	fmt.Fprintf(w, "%s → %s\n%s, %s\n\n", r.In, r.Out, r.Formula, r.DType)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range r.Tensors {
		from, to := l.From, l.To
		if from == "" {
			from = "(none)"
		}
		if to == "" {
			to = "(left over)"
		}
		fmt.Fprintf(t, "%s\t%s\t%v\t→ %s\t%s\n", from, l.DType, l.Shape, to, l.Note)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, text := range r.Warnings {
		fmt.Fprintf(w, "\nwarning: %s\n", text)
	}
	return nil
}
