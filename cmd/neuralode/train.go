package main

import "github.com/spf13/cobra"

func (a *app) trainCommand() *cobra.Command { return &cobra.Command{Use: "train DATA"} }
