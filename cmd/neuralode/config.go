package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/seed-5f5774c8/neuralode/internal/table"
)

// notSettings are flags that belong to a call, not to what it computes.
var notSettings = map[string]bool{"config": true, "resume": true, "overwrite": true, "help": true, "json": true}

// readConfig sets the flags that a YAML or TOML file names, but those of the command line.
func readConfig(path string, flags *pflag.FlagSet) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return table.Explain(path, err)
	}
	values := map[string]any{}
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".yaml", ".yml":
		err = yaml.Unmarshal(text, &values)
	case ".toml":
		err = toml.Unmarshal(text, &values)
	default:
		return usagef("--config %s: give a file whose name ends in .yaml or .toml", path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	given := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	for key, value := range values {
		if flags.Lookup(key) == nil || notSettings[key] {
			var names []string
			flags.VisitAll(func(f *pflag.Flag) {
				if !notSettings[f.Name] {
					names = append(names, f.Name)
				}
			})
			return fmt.Errorf("%s has no use for %q; its settings are %s", path, key, strings.Join(names, ", "))
		}
		if given[key] {
			continue
		}
		text := fmt.Sprint(value)
		if list, ok := value.([]any); ok {
			parts := make([]string, len(list))
			for i, v := range list {
				parts[i] = fmt.Sprint(v)
			}
			text = strings.Join(parts, ",")
		}
		if err := flags.Set(key, text); err != nil {
			return fmt.Errorf("%s: %s: %w", path, key, err)
		}
	}
	return nil
}

// configOf is what [readConfig] reads to give all flags the values they have.
func configOf(flags *pflag.FlagSet) ([]byte, error) {
	var root yaml.Node
	root.Kind = yaml.MappingNode
	flags.VisitAll(func(f *pflag.Flag) {
		if notSettings[f.Name] {
			return
		}
		value := &yaml.Node{}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value.Kind, value.Style = yaml.SequenceNode, yaml.FlowStyle
			for _, s := range list.GetSlice() {
				item := &yaml.Node{}
				item.SetString(s)
				value.Content = append(value.Content, item)
			}
		} else if f.Value.Type() == "string" {
			value.SetString(f.Value.String())
		} else {
			value = &yaml.Node{Kind: yaml.ScalarNode, Value: f.Value.String()}
		}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: f.Name}, value)
	})
	return yaml.Marshal(&root)
}
