package main

import "github.com/spf13/cobra"

func (a *app) predictCommand() *cobra.Command { return &cobra.Command{Use: "predict MODEL"} }
