package main

import (
	"github.com/spf13/cobra"

	"github.com/seed-5f5774c8/neuralode/mlp"
	"github.com/seed-5f5774c8/neuralode/solver"
)

// complete gives the shell the values of flags that have few, for c and its subcommands.
func complete(c *cobra.Command) {
	activations := texts(mlp.Activations())
	values := map[string][]string{
		"backend":         {"auto", "cpu", "gpu"},
		"method":          texts(solver.Methods()),
		"stepping":        {"joint", "per_sample"},
		"precision":       {"float32", "float64"},
		"activation":      activations,
		"last-activation": activations,
		"time":            {"none", "input", "every_layer"},
		"input":           {"identity", "cube"},
		"loss":            texts(losses()),
		"optimizer":       texts(optimizers()),
		"schedule":        texts(schedules()),
		"validate-by":     {"auto", "series", "time"},
		"format":          {"png", "svg", "pdf"},
	}
	if c.Name() == "predict" {
		values["format"] = []string{"csv", "parquet", "json"}
	}
	for flag, list := range values {
		if c.Flags().Lookup(flag) != nil {
			// It fails for a flag that there is not, or that has its values already.
			_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	for _, sub := range c.Commands() {
		complete(sub)
	}
}
